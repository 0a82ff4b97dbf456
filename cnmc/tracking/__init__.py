"""Loggers beside the run folder's own files, and what is kept at W&B."""
