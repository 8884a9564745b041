"""What was really learned: evaluate every problem, explain one, statistics."""
