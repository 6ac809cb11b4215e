"""Other engines."""
