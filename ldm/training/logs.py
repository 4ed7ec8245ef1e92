"""Numbers of a run as one CSV file that a resumed run goes on with."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from ldm.data.atomic import atomic_file

COLUMNS = ("step", "loss", "lr", "samples_per_s")


class CsvLog(Logger):
    """metrics.csv: a row per logged step. Lightning's own logger deletes the file when a run is resumed."""

    def __init__(self, path: Path, start: int = 0) -> None:
        """`start`: the step that the run resumes at; rows behind it, of a run that crashed, are dropped."""
        super().__init__()
        self.path, self.start = path, start
        self.begun = False

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The settings are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append the known ones of `metrics`; steps are counted from 1, as optimizer steps done."""
        if not self.begun:
            self._begin()
        if step is not None and "loss" in metrics:
            row = {key: metrics[key] for key in COLUMNS[1:] if key in metrics} | {"step": step + 1}
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerow(row)

    def _begin(self) -> None:
        """Start the file with what an earlier part of the run logged up to `start`."""
        rows = []
        if self.path.is_file() and self.start:
            with self.path.open(newline="") as old:
                rows = [row for row in csv.DictReader(old) if int(row["step"]) <= self.start]
        text = StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as file:
            file.write(text.getvalue().encode())
        self.begun = True
