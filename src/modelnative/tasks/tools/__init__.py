"""Tasks made of plain Python functions."""
