"""The network, its loss and optimizer, test-time rotations, and the Lightning module."""
