"""What a program calls; the commands call nothing else."""

from modelnative.tasks import make_task as make

__all__ = ["make"]
