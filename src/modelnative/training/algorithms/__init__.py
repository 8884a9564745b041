"""The algorithms that are shipped, one a file, each with its recipe."""
