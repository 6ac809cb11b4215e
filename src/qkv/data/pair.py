"""Two texts that belong together."""

Pair = tuple[str, str]
"""A source line and its target line."""
