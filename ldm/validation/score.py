"""The scores of a run's validations, kept in validation.csv; which one is best, and why.

A score is the mean over a few regions, so small differences are chance. Two scores are compared region by
region: one is significantly worse if the mean difference is larger than its own standard error.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from ldm.data.files import write_file

FILE = "validation.csv"
COLUMNS = ("step", "score", "identity", "seam", "copying", "scores")
DIGITS = 5  # as the file keeps them, so that a resumed run decides as one that was not stopped


@dataclass(frozen=True)
class ValidationScore:
    """Means over regions at one step, and the `scores` that are compared, one per region.

    `identity`: similarity to the object. `seam`: 1 is none. `copying`: how much more similar a result is to a
    training picture than these are to each other; nan if there is one picture only.
    """

    step: int
    identity: float
    seam: float
    copying: float
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        return fmean(self.scores)

    def text(self) -> str:
        """The numbers in words."""
        copying = "" if math.isnan(self.copying) else f", copying {self.copying:+.3f}"
        return f"score {self.score:.3f} (identity {self.identity:.3f}, seam {self.seam:.2f}{copying})"


@dataclass(frozen=True, eq=False)
class ValidationResult:
    """A score, and a sheet of the regions that it is about, uint8 [H,W,3]."""

    score: ValidationScore
    sheet: np.ndarray


def highest(scores: Sequence[ValidationScore]) -> ValidationScore:
    """The highest score after training began; step 0 counts only if there is nothing else."""
    return max([s for s in scores if s.step] or scores, key=lambda s: s.score)


def best(scores: Sequence[ValidationScore]) -> ValidationScore:
    """The latest that is not significantly worse than the highest: in doubt, longer training wins."""
    top = highest(scores)
    return next(s for s in reversed(scores) if not significantly_worse(s, top))


def significantly_worse(one: ValidationScore, other: ValidationScore) -> bool:
    """By more than the standard error of the mean difference of the regions' scores."""
    differences = [b - a for a, b in zip(one.scores, other.scores, strict=True)]
    error = stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
    return fmean(differences) > error


def since_highest(scores: Sequence[ValidationScore]) -> int:
    """The number of validations after the highest score."""
    return sum(s.step > highest(scores).step for s in scores)


def reason(scores: Sequence[ValidationScore], there: Sequence[ValidationScore] = ()) -> str:
    """Why the best is the best, in a sentence; `there`: the scores whose weights there are, if not all."""
    chosen, top = best(there or scores), highest(there or scores)
    why = "the highest score"
    if chosen.step != top.step:
        why = f"the latest not significantly worse than step {top.step} with {top.score:.3f}"
    before = f"; before training: {scores[0].text()}" if scores[0].step == 0 else ""
    return f"step {chosen.step}: {chosen.text()}, {why} of {len(scores)} validations{before}"


def read_scores(run: Path, until: int) -> list[ValidationScore]:
    """The scores of a run up to a step; [] if it was not validated."""
    if not (run / FILE).is_file():
        return []
    with (run / FILE).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) <= until]
    return [
        ValidationScore(
            step=int(row["step"]),
            identity=float(row["identity"]),
            seam=float(row["seam"]),
            copying=float(row["copying"]),
            scores=tuple(float(score) for score in row["scores"].split()),
        )
        for row in rows
    ]


def write_scores(run: Path, scores: Sequence[ValidationScore]) -> None:
    """Write validation.csv, whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for s in scores:
        numbers = (round(s.score, DIGITS), s.identity, s.seam, s.copying)
        writer.writerow([s.step, *numbers, " ".join(map(str, s.scores))])
    write_file(run / FILE, text.getvalue())
