"""Rows of judged insertions => tables with 95 % intervals: by object, and of two runs paired by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ldm.evaluation.metrics import MEASURES, bootstrap, heading, in_order

Row = Mapping[str, Any]
ALL = "all"
MOST = "v2/outside"  # the one measure of which the worst counts, not the mean


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


@dataclass(frozen=True)
class Line:
    """Of a method and one of its objects (or all): how many images, and an interval for each measure."""

    method: str
    object: str
    model: str
    count: int
    cells: Mapping[str, Interval]


def measured(rows: Sequence[Row]) -> list[str]:
    """The measures that any of the rows has, in the order of columns."""
    return in_order({name for row in rows for name in row["scores"]})


def interval(values: Sequence[float]) -> Interval:
    """Mean and bootstrap interval of at least one value."""
    return Interval(float(np.mean(values)), *bootstrap(values), len(values))


def lines(rows: Sequence[Row]) -> list[Line]:
    """For each method a line for each object, and one over all its images if there are several objects."""
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        names = list(dict.fromkeys(row["object"] for row in own))
        found += [_line([row for row in own if row["object"] == name], name) for name in names]
        if len(names) > 1:
            found.append(_line(own, ALL))
    return found


def table(rows: Sequence[Row]) -> list[list[str]]:
    """The lines as text, the heading first."""
    names = measured(rows)
    head = ["method", "object", "model", "images", *(heading(name) for name in names)]
    out = [head]
    for line in lines(rows):
        cells = [_cell(name, line.cells.get(name), rows, line) for name in names]
        out.append([line.method or "–", line.object, line.model, str(line.count), *cells])
    return out


def pairs(rows: Sequence[Row], others: Sequence[Row]) -> dict[str, np.ndarray]:
    """Of each measure that both runs tell, its values [n,2] of the n images that both have, by name."""
    other = {row["name"]: row["scores"] for row in others}
    both = [(row["scores"], other[row["name"]]) for row in rows if row["name"] in other]
    found = {name: [(a[name], b[name]) for a, b in both if name in a and name in b] for name in MEASURES}
    return {name: np.array(values) for name, values in found.items() if values}


def difference_table(rows: Sequence[Row], others: Sequence[Row]) -> list[list[str]]:
    """A line for each measure: both means over the shared images, the paired difference, who is better."""
    out = [["measure", "pairs", "this run", "other run", "difference [95 %]", "better"]]
    for name, values in pairs(rows, others).items():
        apart, decimals = interval(values[:, 0] - values[:, 1]), MEASURES[name].decimals
        means = [f"{mean:.{decimals}f}" for mean in values.mean(axis=0)]
        told = apart.text(decimals, sign=True)
        out.append([heading(name), str(apart.count), *means, told, better(name, apart)])
    return out


def better(name: str, apart: Interval) -> str:
    """Which run is better, if its interval leaves zero out."""
    way = MEASURES[name].better
    if not way or apart.low <= 0 <= apart.high:
        return "–" if not way else "undecided"
    return "this run" if (apart.mean > 0) == (way > 0) else "other run"


def markdown(text: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of text as Markdown; the first columns are set left, the others right."""
    head, *body = text
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in [head, rule, *body]
    )


def _line(rows: Sequence[Row], name: str) -> Line:
    models = list(dict.fromkeys(row["model"] for row in rows))
    cells = {
        measure: interval([row["scores"][measure] for row in rows if measure in row["scores"]])
        for measure in measured(rows)
    }
    return Line(rows[0]["method"], name, ", ".join(models), len(rows), cells)


def _cell(name: str, found: Interval | None, rows: Sequence[Row], line: Line) -> str:
    if found is None:
        return "–"
    decimals = MEASURES[name].decimals
    if name == MOST:
        return f"{_most(rows, line):g}"
    return found.text(decimals) if MEASURES[name].better else f"{found.mean:.{decimals}f}"


def _most(rows: Sequence[Row], line: Line) -> float:
    own = [row for row in rows if row["method"] == line.method and line.object in (ALL, row["object"])]
    return max(row["scores"][MOST] for row in own if MOST in row["scores"])
