"""What the author of a task imports: the task contract, its batches, its checker and its samplers."""
