"""Gymnasium environments as tasks: `gymnasium:<id>`."""
