"""Sweeps: many trainings planned from one specification, run in separate processes, collected in one table."""
