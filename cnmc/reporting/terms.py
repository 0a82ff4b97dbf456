"""Names of the metrics and classes."""

TITLES = {
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "auroc": "AUROC",
}
CLASSES = ("HEM", "ALL")
