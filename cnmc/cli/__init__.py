"""The shell around every command."""
