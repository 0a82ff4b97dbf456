"""Tests of cnmc.reporting."""
