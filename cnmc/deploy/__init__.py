"""A trained network as a file, and over a folder of cells."""
