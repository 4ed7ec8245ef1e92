"""Scored results => tables with 95 % intervals, and a folder with them: report.md, measures.jsonl, sheet.png.

Tables are text: of methods, by object, and of two runs paired by image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ldm.batch.contact_sheet import close_up, contact_sheet, thumbnail
from ldm.batch.results_log import SHEET
from ldm.data.files import write_file
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.evaluation.metrics import MEASURES, bootstrap, heading, in_order
from ldm.evaluation.results import Insertion, Row
from ldm.insertion.roi import Roi, plan_roi

WORST = "v2/outside"  # the one measure of which the worst counts, not the mean
PROTOCOLS = (
    "Every number is of the protocol before its colon, and compares only inside it: paper and pbe repeat the "
    "published code of the paper and of Paint-by-Example, v2 is ours. Mean over images [95 % bootstrap "
    "interval]; of changes outside the mask, the largest. Identity, CLIP, DINOv2: cosines, 1 for the same. "
    "'model' is the fingerprint of the base that made the result."
)
TILE, BAR = 192, 17  # pixels
MOST_ROWS = 48  # of the sheet, the worst ones


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


def cell(rows: Sequence[Row], name: str, of_set: Mapping[str, float] = MappingProxyType({})) -> str:
    """One measure over rows: its mean, with an interval if it says what is better; a dash without values.

    `of_set`: the measures of all rows together.
    """
    values, measure = values_of(rows, name), MEASURES[name]
    if name in of_set:
        return f"{of_set[name]:.{measure.decimals}f}"
    if not values:
        return "–"
    if name == WORST:
        return f"{max(values):g}"
    found = interval(values)
    return found.text(measure.decimals) if measure.better else f"{found.mean:.{measure.decimals}f}"


def table(
    rows: Sequence[Row],
    sets: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    by_object: bool = False,
) -> list[list[str]]:
    """A line for each method over all its images, or for each of its objects, if there are several.

    `sets`: method => measures of all its images together. Text; the heading first.
    """
    names = in_order({*measured(rows), *(name for scores in sets.values() for name in scores)})
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
                lines.append([*first, *(cell(own, name, sets.get(method, {})) for name in names)])
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


COMPARED = ("v2/identity", "v2/psnr_object", "v2/psnr_around")


def comparison_table(rows: Sequence[Row], against: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Paired differences of COMPARED, a line for each method and each that it is held `against`.

    Mean and interval over objects, of each the mean of its images; and the share of images that are worse.
    """
    names = [name for name in COMPARED if name in measured(rows)]
    titles = [title for name in names for title in (f"{heading(name)} [95 % over objects]", "worse")]
    out = [["method", "against", "images", *titles]]
    for method, others in against.items():
        own = [row for row in rows if row["method"] == method]
        for other in others:
            theirs = {row["name"]: row["scores"] for row in rows if row["method"] == other}
            both = [row for row in own if row["name"] in theirs]
            if both:
                cells = [c for name in names for c in _compared(both, theirs, name)]
                out.append([method, other, str(len(both)), *cells])
    return out


def _compared(rows: Sequence[Row], others: Mapping[str, Mapping[str, float]], name: str) -> tuple[str, str]:
    by_object: dict[str, list[float]] = {}
    for row in rows:
        if name in row["scores"] and name in others[row["name"]]:
            difference = row["scores"][name] - others[row["name"]][name]
            by_object.setdefault(row["object"], []).append(difference)
    if not by_object:
        return "–", "–"
    found = interval([float(np.mean(values)) for values in by_object.values()])
    worse = np.mean([value < 0 for values in by_object.values() for value in values])
    return found.text(MEASURES[name].decimals, sign=True), f"{100 * worse:.0f} %"


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

    def rows_of(self, method: str) -> list[Row]:
        """The rows of one method."""
        return [row for row in self.rows if row["method"] == method]


def write_report(
    folder: Path,
    run: ScoredRun,
    notes: Sequence[str],
    against: ScoredRun | None = None,
    compared: Mapping[str, Sequence[str]] | None = None,
) -> list[Path]:
    """Write the three files, each whole or not at all; returns them.

    `against` is a run of one method; `compared`: methods of this run, each with those it is compared with.
    """
    tables = {
        "Methods": table(run.rows, run.sets),
        "Compared, paired by image": comparison_table(run.rows, compared or {}),
    }
    tables |= {"By object": table(run.rows, by_object=True)}
    tables |= _difference_tables(run, against)
    text = [f"# Measures of {run.source}", PROTOCOLS, *notes]
    text += [f"## {name}\n\n{markdown(rows)}" for name, rows in tables.items() if len(rows) > 1]
    contents = {
        folder / "measures.jsonl": "".join(json.dumps(row) + "\n" for row in run.rows),
        folder / "report.md": "\n\n".join([*text, "![results, the worst first](sheet.png)\n"]),
    }
    for path, content in contents.items():
        write_file(path, content)
    sheet = folder / "sheet.png"
    write_picture(sheet, Picture(result_sheet(run, against)), SHEET)
    return [*contents, sheet]


def _difference_tables(run: ScoredRun, against: ScoredRun | None) -> dict[str, list[list[str]]]:
    if against is None:
        return {}
    found = {}
    for method in run.methods:
        name = " ".join([*filter(None, [method]), "against", against.source])
        title = f"{name[0].upper()}{name[1:]}, paired by image"
        found[title] = difference_table(run.rows_of(method), against.rows)
    return found


def result_sheet(run: ScoredRun, against: ScoredRun | None = None) -> np.ndarray:
    """A row for each image, the worst first: what it was made from, and the result of each method.

    uint8 [H,W,3]; a result's label is the first measure that says what is better.
    """
    measure = next((name for name in measured(run.rows) if MEASURES[name].better), "")
    own = {(x.method, x.name): (x, row) for x, row in zip(run.insertions, run.rows, strict=True)}
    if against is not None:
        others = zip(against.insertions, against.rows, strict=True)
        own |= {("other run", x.name): (x, row) for x, row in others}
    columns = [*run.methods, *["other run"] * (against is not None)]
    lines = []
    for name in _worst_first(run, measure)[:MOST_ROWS]:
        found = {method: own[method, name] for method in columns if (method, name) in own}
        results = {method: _result_tile(*one, measure) for method, one in found.items()}
        first, _ = next(iter(found.values()))
        lines.append([*_site_tiles(first), *(results.get(method, _blank()) for method in columns)])
    captions = ["background", "reference", "truth", *(method or "result" for method in columns)]
    return contact_sheet(lines, captions, TILE)


def _worst_first(run: ScoredRun, measure: str) -> list[str]:
    """The names of the images by the mean of a measure over the methods; in their order without one."""
    values: dict[str, list[float]] = {row["name"]: [] for row in run.rows}
    for row in run.rows:
        if measure in row["scores"]:
            values[row["name"]].append(MEASURES[measure].better * row["scores"][measure])
    return sorted(values, key=lambda name: float(np.mean(values[name])) if values[name] else np.inf)


def _site_tiles(insertion: Insertion) -> list[np.ndarray]:
    """Background, reference and truth of an image."""
    _, images = insertion.read()
    roi = _region(images.rois, images.mask)
    truth = _blank() if images.truth is None else _tile(close_up(images.truth, roi), "")
    reference = _tile(thumbnail(insertion.references.picture(), TILE), insertion.object)
    return [_tile(close_up(images.background, roi), insertion.name), reference, truth]


def _result_tile(insertion: Insertion, row: Row, measure: str) -> np.ndarray:
    result, images = insertion.read()
    value = row["scores"].get(measure)
    label = "" if value is None else f"{value:.{MEASURES[measure].decimals}f}"
    return _tile(close_up(result, _region(images.rois, images.mask)), label)


def _region(rois: Sequence[Roi], mask: np.ndarray) -> Roi:
    return rois[0] if len(rois) == 1 else plan_roi(mask)


def _tile(pixels: np.ndarray, label: str) -> np.ndarray:
    """Pixels uint8 [h,w,3] in a square of TILE px, with a label along its foot."""
    tile = Image.new("RGB", (TILE, TILE), "white")
    tile.paste(Image.fromarray(thumbnail(pixels, TILE)))
    draw = ImageDraw.Draw(tile)
    draw.rectangle((0, TILE - BAR, TILE, TILE), fill="white")
    draw.text((4, TILE - BAR + 1), label, (40, 40, 40), ImageFont.load_default(12))
    return np.asarray(tile)


def _blank() -> np.ndarray:
    return np.full((TILE, TILE, 3), 255, np.uint8)
