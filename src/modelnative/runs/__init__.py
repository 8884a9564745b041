"""A run on disk: configuration, metrics, checkpoints, weights. Written so that it survives a kill at any moment."""
