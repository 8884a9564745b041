"""The published tutorial's environment."""
