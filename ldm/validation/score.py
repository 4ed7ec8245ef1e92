"""What a run's judge has said: one verdict a judged step, kept in judged.csv; which is best, and why.

A verdict is the mean over a few regions, so small differences are chance. They are compared region by region:
one is clearly worse than another if the mean difference is larger than its own standard error.
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

from ldm.data.files import atomic_file

FILE = "judged.csv"
COLUMNS = ("step", "score", "identity", "seam", "copying", "scores")
DIGITS = 5  # as the file keeps them, so that a resumed run decides as one that was not stopped


@dataclass(frozen=True)
class ValidationScore:
    """Means over regions at one step, and the `scores` that are compared, one a region.

    `identity`: likeness to pictures of the object. `seam`: 1 is none. `copying`: how much nearer a result is
    to one training picture than these are to each other; nan if there is one picture only.
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
class Shown:
    """A verdict, and the picture of what was judged, uint8 [H,W,3]."""

    verdict: ValidationScore
    picture: np.ndarray


def record(verdicts: Sequence[ValidationScore]) -> ValidationScore:
    """The highest score of what was learnt; step 0, before learning, counts only if there is nothing else."""
    return max([v for v in verdicts if v.step] or verdicts, key=lambda verdict: verdict.score)


def best(verdicts: Sequence[ValidationScore]) -> ValidationScore:
    """The latest that is not clearly worse than the record: in doubt, the one that has learnt longer."""
    highest = record(verdicts)
    return next(v for v in reversed(verdicts) if not clearly_worse(v, highest))


def clearly_worse(one: ValidationScore, other: ValidationScore) -> bool:
    """By more than the standard error of the mean difference of the regions' scores."""
    differences = [b - a for a, b in zip(one.scores, other.scores, strict=True)]
    error = stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
    return fmean(differences) > error


def idle(verdicts: Sequence[ValidationScore]) -> int:
    """How many verdicts ago the record was made."""
    return sum(v.step > record(verdicts).step for v in verdicts)


def reason(verdicts: Sequence[ValidationScore]) -> str:
    """Why the best is the best, in a sentence."""
    chosen, highest = best(verdicts), record(verdicts)
    why = "the highest score"
    if chosen.step != highest.step:
        why = f"the latest that is not clearly worse than step {highest.step} with {highest.score:.3f}"
    before = f"; before learning: {verdicts[0].text()}" if verdicts[0].step == 0 else ""
    return f"step {chosen.step}: {chosen.text()}, {why} of {len(verdicts)} judgements{before}"


def read_scores(run: Path, until: int) -> list[ValidationScore]:
    """The verdicts of a run up to a step; [] if it was not judged."""
    if not (run / FILE).is_file():
        return []
    with (run / FILE).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) <= until]
    return [_verdict(row) for row in rows]


def write_scores(run: Path, verdicts: Sequence[ValidationScore]) -> None:
    """Write judged.csv anew, whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for v in verdicts:
        numbers = (round(v.score, DIGITS), v.identity, v.seam, v.copying)
        writer.writerow([v.step, *numbers, " ".join(map(str, v.scores))])
    run.mkdir(parents=True, exist_ok=True)
    with atomic_file(run / FILE) as file:
        file.write(text.getvalue().encode())


def _verdict(row: dict[str, str]) -> ValidationScore:
    identity, seam, copying = (float(row[name]) for name in ("identity", "seam", "copying"))
    scores = tuple(float(score) for score in row["scores"].split())
    return ValidationScore(int(row["step"]), identity, seam, copying, scores)
