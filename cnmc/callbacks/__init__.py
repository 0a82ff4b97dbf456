"""What happens around training: recording, checkpoints, progress."""
