"""A trained network over a folder of cells: finding, reading, judging, and what is written of it.

Nothing that is imported here needs torch, so exported networks screen where it is not installed;
:mod:`cnmc.screening.explain` alone does, and is imported only for a checkpoint.
"""
