"""Many trainings as one: a plan from a file, trials in processes of their own, one table of results."""
