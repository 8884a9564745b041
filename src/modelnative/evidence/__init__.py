"""What a policy has learned and what a task measures: evaluation, explanation, certificates, statistics."""
