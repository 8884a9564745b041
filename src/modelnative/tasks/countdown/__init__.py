"""Reach a target number from given numbers."""
