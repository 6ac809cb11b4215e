"""From a description to a module."""
