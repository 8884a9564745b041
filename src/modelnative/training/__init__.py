"""Rollout, advantage, loss, update, under a curriculum. Yields progress, touches no file."""
