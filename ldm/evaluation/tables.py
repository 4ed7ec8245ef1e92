"""Rows of scored results => tables with 95 % intervals: by object, and of two runs paired by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ldm.evaluation.metrics import MEASURES, bootstrap, heading, in_order
from ldm.evaluation.results import Row

WORST = "v2/outside"  # the one measure of which the worst counts, not the mean


@dataclass(frozen=True)
class Interval:
    """A mean over `count` images and the ends of its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    count: int

    def text(self, decimals: int, sign: bool = False) -> str:
        """mean [low, high]; `sign` writes a plus where it is one."""
        numbers = [f"{x:{'+' if sign else ''}.{decimals}f}" for x in (self.mean, self.low, self.high)]
        return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def measured(rows: Sequence[Row]) -> list[str]:
    """The measures that any of the rows has, in the order of columns."""
    return in_order({name for row in rows for name in row["scores"]})


def interval(values: Sequence[float]) -> Interval:
    """Mean and bootstrap interval of at least one value."""
    return Interval(float(np.mean(values)), *bootstrap(values), len(values))


def values_of(rows: Sequence[Row], name: str) -> list[float]:
    """One measure of the rows that have it."""
    return [row["scores"][name] for row in rows if name in row["scores"]]


def cell(rows: Sequence[Row], name: str) -> str:
    """One measure over rows: its mean, with an interval if it says what is better; a dash without values."""
    values, measure = values_of(rows, name), MEASURES[name]
    if not values:
        return "–"
    if name == WORST:
        return f"{max(values):g}"
    found = interval(values)
    return found.text(measure.decimals) if measure.better else f"{found.mean:.{measure.decimals}f}"


def table(rows: Sequence[Row], by_object: bool = False) -> list[list[str]]:
    """A line for each method over all its images, or for each of its objects, if there are several.

    Text; the heading first.
    """
    names = measured(rows)
    lines = [["method", *["object"] * by_object, "model", "images", *(heading(name) for name in names)]]
    objects = list(dict.fromkeys(row["object"] for row in rows))
    if by_object and len(objects) < 2:
        return lines
    for method in dict.fromkeys(row["method"] for row in rows):
        for title in objects if by_object else [""]:
            own = [row for row in rows if row["method"] == method and title in ("", row["object"])]
            models = ", ".join(dict.fromkeys(row["model"] for row in own))
            if own:
                first = [method or "–", *[title] * by_object, models, str(len(own))]
                lines.append([*first, *(cell(own, name) for name in names)])
    return lines


def pairs(rows: Sequence[Row], others: Sequence[Row]) -> dict[str, np.ndarray]:
    """Of each measure that both runs have, its values [n,2] of the n images that both have, by name."""
    other = {row["name"]: row["scores"] for row in others}
    both = [(row["scores"], other[row["name"]]) for row in rows if row["name"] in other]
    found = {name: [(a[name], b[name]) for a, b in both if name in a and name in b] for name in MEASURES}
    return {name: np.array(values) for name, values in found.items() if values}


def difference_table(rows: Sequence[Row], others: Sequence[Row]) -> list[list[str]]:
    """A line for each measure: both means over the shared images, the paired difference, who is better."""
    out = [["measure", "pairs", "this run", "other run", "difference [95 %]", "better"]]
    for name, values in pairs(rows, others).items():
        difference, decimals = interval(values[:, 0] - values[:, 1]), MEASURES[name].decimals
        means = [f"{mean:.{decimals}f}" for mean in values.mean(axis=0)]
        numbers = [str(difference.count), *means, difference.text(decimals, sign=True)]
        out.append([heading(name), *numbers, better(name, difference)])
    return out


def better(name: str, difference: Interval) -> str:
    """Which run is better, if the interval of the difference excludes zero."""
    way = MEASURES[name].better
    if not way or difference.low <= 0 <= difference.high:
        return "–" if not way else "undecided"
    return "this run" if (difference.mean > 0) == (way > 0) else "other run"


def markdown(text: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of text as Markdown; the first columns are set left, the others right."""
    head, *body = text
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in [head, rule, *body]
    )
