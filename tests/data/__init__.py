"""Tests of cnmc.data."""
