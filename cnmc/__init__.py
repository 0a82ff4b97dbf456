"""Classification of leukemic white blood cells on C-NMC 2019."""

__version__ = "0.1.0"
