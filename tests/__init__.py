"""Tests of cnmc, one folder or file for each part of the package."""
