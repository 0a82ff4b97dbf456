"""Measurements of this project beside the paper's description of the same work."""
