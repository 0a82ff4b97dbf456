"""Classification of leukemic white blood cells on C-NMC 2019."""

import os

__version__ = "0.1.0"

# On a CPU, PyTorch asks the system for the memory of every large tensor anew, which takes a third
# of the time of a training; less in pages of 2 MB. It looks for this once, at its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
