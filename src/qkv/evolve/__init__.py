"""The search for architectures."""
