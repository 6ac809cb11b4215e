"""One file for each paper: a description in the paper's words and order."""
