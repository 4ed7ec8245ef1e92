"""The results of a reproduction so far => RESULTS.md: claims, the best recipe, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ldm.data.files import write_file
from ldm.evaluation.ablations import FEWEST, Comparison
from ldm.evaluation.metrics import heading
from ldm.evaluation.report import Interval, cell, interval, markdown, measured, pairs, values_of
from ldm.evaluation.results import Row

SHOWN = (
    "v2/identity", "v2/identity_mean", "paper/clip", "paper/dino", "v2/clip_mean", "v2/dino_mean",
    "v2/psnr_object", "v2/perceptual_object", "v2/seam", "v2/outside", "v2/seconds", "v2/learning_seconds",
    "paper/clip_fid",
)  # fmt: skip
ABOUT = (
    "Mean over images [95 % bootstrap interval]. Differences are paired by image, their intervals are over "
    f"objects, as an object's images are alike; fewer than {FEWEST} decide nothing. Every number is of the "
    "protocol before its colon and compares only inside it. Flat and Poisson pasting repeat the reference "
    "picture itself, so that their identity is high whatever they look like in the scene."
)


@dataclass(frozen=True)
class BenchmarkResults:
    """The rows of one benchmark by method, `done` of `runs`; `sets`: numbers of all results of a method."""

    benchmark: str
    rows: Mapping[str, Sequence[Row]]
    done: int
    runs: int
    sets: Mapping[str, Mapping[str, float]]

    @property
    def measure(self) -> str:
        """What decides: identity to the truth where there is one, else to the views of the object."""
        names = measured([row for rows in self.rows.values() for row in rows])
        return "v2/identity" if "v2/identity" in names else "v2/identity_mean"

    def values(self, name: str, measure: str) -> list[float]:
        """One measure of one method, over its images."""
        return values_of(self.rows.get(name, ()), measure)

    def difference(self, one: str, other: str, measure: str = "") -> Interval | None:
        """Of a measure, or of what decides, paired by image, over objects; None if no image has both."""
        means = []
        for name in dict.fromkeys(row["object"] for row in self.rows.get(one, ())):
            own = [[row for row in self.rows.get(v, ()) if row["object"] == name] for v in (one, other)]
            found = pairs(*own).get(measure or self.measure)
            if found is not None:
                means.append(float((found[:, 0] - found[:, 1]).mean()))
        return interval(means) if means else None


def write_results(
    folder: Path, found: Sequence[BenchmarkResults], comparison: Comparison, notes: Sequence[str]
) -> Path:
    """Write RESULTS.md into `folder`; returns it."""
    parts = ["# Results", ABOUT, *notes]
    for one in found:
        parts += [f"## {one.benchmark}", f"{one.done} of {one.runs} runs (a method on an object) are done."]
        if any(one.rows.values()):
            parts += [*_claims(one, comparison), *_best(one, comparison)]
            for title, names in comparison.tables.items():
                parts += _table(one, title, names, comparison)
    file = folder / "RESULTS.md"
    write_file(file, "\n\n".join(parts) + "\n")
    return file


def _claims(found: BenchmarkResults, comparison: Comparison) -> list[str]:
    lines = [["claim", "compared", "measure", "objects", "difference", "verdict"]]
    for claim in comparison.claims:
        for measure in (found.measure, claim.against_truth):
            if difference := found.difference(claim.better, claim.worse, measure):
                numbers = [str(difference.count), difference.text(3, sign=True)]
                numbers.append(claim.verdict(difference, measure))
                lines.append([claim.text, f"{claim.better} - {claim.worse}", heading(measure), *numbers])
    return ["### Claims", markdown(lines, left=3)] if len(lines) > 1 else []


def _best(found: BenchmarkResults, comparison: Comparison) -> list[str]:
    """The trained method with the highest mean of those that have all images, and which are as good."""
    learnt = [name for name, method in comparison.methods.items() if method.is_trained]
    values = {name: found.values(name, found.measure) for name in learnt}
    most = max((len(x) for x in values.values()), default=0)
    means = {name: interval(x) for name, x in values.items() if most and len(x) == most}
    if not means:
        return []
    best = max(means, key=lambda name: means[name].mean)
    differences = {name: found.difference(best, name) for name in means if name != best}
    equal = [
        name
        for name, difference in differences.items()
        if difference and (difference.count < FEWEST or difference.low <= 0)
    ]
    text = f"`{best}` ({comparison.methods[best].title}): {means[best].text(3)}."
    if equal:
        text += f" Not significantly different: {', '.join(f'`{name}`' for name in equal)}."
    changes = dict(comparison.methods[best].learning) | dict(comparison.methods[best].insertion)
    settings = ", ".join(f"{key} {value}" for key, value in changes.items())
    return ["### Best recipe", text, f"Settings: {settings}."]


def _table(found: BenchmarkResults, title: str, names: Sequence[str], comparison: Comparison) -> list[str]:
    names = [name for name in names if found.rows.get(name)]
    if not names:
        return []
    rows = [row for name in names for row in found.rows[name]]
    known = {*measured(rows), *(key for scores in found.sets.values() for key in scores)}
    measures = [name for name in SHOWN if name in known]
    lines = [["method", "", "images", *(heading(name) for name in measures)]]
    for name in names:
        cells = [cell(found.rows[name], measure, found.sets.get(name, {})) for measure in measures]
        lines.append([name, comparison.methods[name].title, str(len(found.rows[name])), *cells])
    return [f"### {title}", markdown(lines, left=2)]
