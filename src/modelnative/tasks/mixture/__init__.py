"""Several tasks as one, for one network."""
