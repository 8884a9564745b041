"""Arithmetic on a pocket calculator."""
