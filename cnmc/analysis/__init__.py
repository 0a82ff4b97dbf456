"""From run folders to numbers: no network, no torch, only what is stored on disk."""
