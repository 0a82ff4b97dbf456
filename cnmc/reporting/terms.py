"""Names of the metrics and classes."""

from cnmc.analysis.metrics import METRICS

TITLES = {name: metric.title for name, metric in METRICS.items()}
CLASSES = ("HEM", "ALL")
