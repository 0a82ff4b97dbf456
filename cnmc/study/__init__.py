"""Studies: many runs that one command asks for."""
