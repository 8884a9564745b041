"""Your own logger: a callback that writes a CSV file, and a function that prints.

For TensorBoard, Weights & Biases, Trackio and MLflow there is `log="tensorboard"` (`--log tensorboard`).
"""

import csv
import tempfile
from pathlib import Path

import modelnative as mn

FIELDS = ("update", "steps", "mean_return", "entropy", "approximate_kl")


class CSVLogger(mn.Callback):
    """Writes a row for each update; see the page on metrics for what they mean."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, event: mn.Started) -> None:
        """Write the heading, unless the training continues."""
        if event.update == 0:
            self.path.write_text(",".join(FIELDS) + "\n")

    def on_update(self, event: mn.Updated) -> None:
        """Add a row."""
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow([getattr(event.metrics, field) for field in FIELDS])

    def on_finish(self, event: mn.Finished) -> None:
        """Say where it is."""
        print(f"{event.updates} updates in {self.path.name}: {event.evaluation.line()}")


def print_verifications(event: mn.Event) -> None:
    """A callback may also be a function of an event."""
    if isinstance(event, mn.Verified):
        print(f"update {event.update}: {event.evaluation.line()}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        logger = CSVLogger(Path(folder) / "metrics.csv")
        mn.train("arithmetic", updates=20, out=Path(folder) / "run", callbacks=[logger, print_verifications])
        print(logger.path.read_text().splitlines()[-1])
