"""From text to a model."""
