"""The studio: a folder of runs in the browser."""
