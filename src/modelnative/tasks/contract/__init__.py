"""What the author of a task imports: the contract, batches, the check and helpers for sampling."""
