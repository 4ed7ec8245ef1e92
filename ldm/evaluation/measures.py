"""Scored results => measures.jsonl (a line an image), measures.md and measures.html, in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ldm.data.files import atomic_file
from ldm.evaluation.html_page import page
from ldm.evaluation.metrics import MEASURES, heading
from ldm.evaluation.results import Insertion, Row
from ldm.evaluation.tables import difference_table, markdown, table

NAME = "measures"  # of the files
PROTOCOLS = (
    "Every number is of the protocol before its colon, and compares only inside it: paper and pbe repeat the "
    "published code of the paper and of Paint-by-Example, v2 is ours. Mean over images [95 % bootstrap "
    "interval], 'all' over the images of all objects; of changes outside the mask, the largest. Identity, "
    "CLIP, DINOv2: cosines, 1 for the same. 'model' is the fingerprint of the base that made the result."
)


@dataclass(frozen=True)
class ScoredRun:
    """Insertions and a row of scores for each, one to one; `sets`: method => numbers of all its results."""

    source: str
    insertions: Sequence[Insertion]
    rows: Sequence[Row]
    sets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """In the order in which they come; [""] for a run that has none."""
        return list(dict.fromkeys(row["method"] for row in self.rows))


def write_measures(
    folder: Path, run: ScoredRun, notes: Sequence[str], against: ScoredRun | None = None
) -> list[Path]:
    """Write the three files, each whole or not at all; returns them. `against` is a run of one method."""
    tables = {"By object": table(run.rows)} | _set_table(run) | _difference_tables(run, against)
    title, notes = f"Measures of {run.source}", [PROTOCOLS, *notes]
    text = [f"# {title}", *notes, *(f"## {name}\n\n{markdown(rows)}" for name, rows in tables.items())]
    others = {x.name: x for x in against.insertions} if against else {}
    pieces = page(title, notes, tables, run.rows, run.insertions, others)
    contents = {
        ".jsonl": (json.dumps(row) + "\n" for row in run.rows),
        ".md": ["\n\n".join(text) + "\n"],
        ".html": pieces,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, content in contents.items():
        with atomic_file(folder / f"{NAME}{suffix}") as file:
            for piece in content:
                file.write(piece.encode())
    return [folder / f"{NAME}{suffix}" for suffix in contents]


def _set_table(run: ScoredRun) -> dict[str, list[list[str]]]:
    names = [name for name in MEASURES if any(name in scores for scores in run.sets.values())]
    if not names:
        return {}
    lines = [["method", *(heading(name) for name in names)]]
    for method, scores in run.sets.items():
        cells = [f"{scores[name]:.{MEASURES[name].decimals}f}" for name in names]
        lines.append([method or "–", *cells])
    return {"All results together": lines}


def _difference_tables(run: ScoredRun, against: ScoredRun | None) -> dict[str, list[list[str]]]:
    if against is None:
        return {}
    found = {}
    for method in run.methods:
        own = [row for row in run.rows if row["method"] == method]
        name = " ".join([*filter(None, [method]), "against", against.source])
        found[f"{name[0].upper()}{name[1:]}, paired by image"] = difference_table(own, against.rows)
    return found
