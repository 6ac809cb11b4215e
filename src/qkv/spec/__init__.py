"""The grammar: models, data and runs as frozen values in pure Python."""
