"""Reproduce a cue after distractors."""
