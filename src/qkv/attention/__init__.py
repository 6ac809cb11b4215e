"""The maths of queries, keys and values."""
