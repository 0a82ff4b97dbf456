"""The figures of a report, one function each; they take plain tables and know no runs."""

from cnmc.reporting.figures.averaging import ensembles, views
from cnmc.reporting.figures.calibration import reliability
from cnmc.reporting.figures.discrimination import persons, roc
from cnmc.reporting.figures.groups import intervals, runs_by_group, selection
from cnmc.reporting.figures.paper import figure2, figure3, figure4

__all__ = [
    "ensembles",
    "figure2",
    "figure3",
    "figure4",
    "intervals",
    "persons",
    "reliability",
    "roc",
    "runs_by_group",
    "selection",
    "views",
]
