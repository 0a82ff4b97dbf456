"""Prediction with trained networks: one graph from bytes to logits, and what runs it fast.

:mod:`cnmc.inference.graph` makes the graph of a checkpoint, :mod:`cnmc.inference.export` writes it
to files, :mod:`cnmc.inference.runtime` runs such files and needs no torch, and
:mod:`cnmc.inference.backends` has all ways to run a network on this machine under one name each.
"""
