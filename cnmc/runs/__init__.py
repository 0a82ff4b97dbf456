"""Run folders: the contract between training and everything after it."""
