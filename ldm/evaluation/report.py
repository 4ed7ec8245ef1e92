"""Scored results => tables with 95 % intervals, and a folder: report.md, measures.jsonl, sheet.png."""

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
from ldm.data.files import check_reports, write_file
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.evaluation.metrics import MEASURES, bootstrap, heading, in_order
from ldm.evaluation.results import Insertion, Row
from ldm.insertion.roi import plan_roi

WORST = "v2/outside"  # the one measure of which the worst counts, not the mean
PROTOCOLS = (
    "Every number is of the protocol before its colon, and compares only inside it: paper and pbe repeat the "
    "published code of the paper and of Paint-by-Example, v2 is ours. Mean over images [95 % bootstrap "
    "interval]; of changes outside the mask, the largest. Identity, CLIP, DINOv2: cosines, 1 for the same. "
    "'model' is the fingerprint of the base that made the result."
)
HEADS = {"report.md": "# Measures of ", "measures.jsonl": '{"'}  # how files of a report begin
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


def cell(rows: Sequence[Row], name: str, of_set: Mapping[str, float] = MappingProxyType({})) -> str:
    """A measure over rows: its mean, with an interval if it says what is better; `of_set`: of all rows."""
    measure = MEASURES[name]
    values = [row["scores"][name] for row in rows if name in row["scores"]]
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


def paired(rows: Sequence[Row], others: Sequence[Row], name: str) -> list[tuple[str, float, float]]:
    """A measure of the images that both runs have, by name: object, value, the other run's value."""
    theirs = {row["name"]: row["scores"] for row in others}
    both = [(row, theirs[row["name"]]) for row in rows if row["name"] in theirs]
    return [
        (row["object"], row["scores"][name], other[name])
        for row, other in both
        if name in row["scores"] and name in other
    ]


def differences(rows: Sequence[Row], others: Sequence[Row], name: str) -> dict[str, list[float]]:
    """Object => the paired differences of a measure, row minus other."""
    found: dict[str, list[float]] = {}
    for title, one, other in paired(rows, others, name):
        found.setdefault(title, []).append(one - other)
    return found


def difference_table(rows: Sequence[Row], others: Sequence[Row]) -> list[list[str]]:
    """A line for each measure: both means over the shared images, the paired difference, who is better."""
    out = [["measure", "pairs", "this run", "other run", "difference [95 %]", "better"]]
    for name, measure in MEASURES.items():
        if found := paired(rows, others, name):
            values = np.array([pair for _, *pair in found])
            difference = interval(values[:, 0] - values[:, 1])
            means = [f"{mean:.{measure.decimals}f}" for mean in values.mean(axis=0)]
            numbers = [str(difference.count), *means, difference.text(measure.decimals, sign=True)]
            out.append([heading(name), *numbers, better(name, difference)])
    return out


COMPARED = ("v2/identity", "v2/psnr_object", "v2/psnr_around")


def comparison_table(rows: Sequence[Row], against: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Paired differences of COMPARED over objects, a line for each method and each that it is `against`."""
    names = [name for name in COMPARED if name in measured(rows)]
    titles = [title for name in names for title in (f"{heading(name)} [95 % over objects]", "worse")]
    out = [["method", "against", "images", *titles]]
    for method, others in against.items():
        own = [row for row in rows if row["method"] == method]
        for other in others:
            theirs = [row for row in rows if row["method"] == other]
            if both := {row["name"] for row in own} & {row["name"] for row in theirs}:
                cells = [c for name in names for c in _compared(differences(own, theirs, name), name)]
                out.append([method, other, str(len(both)), *cells])
    return out


def _compared(by_object: Mapping[str, Sequence[float]], name: str) -> tuple[str, str]:
    if not by_object:
        return "–", "–"
    worse = np.mean([value < 0 for values in by_object.values() for value in values])
    return over_objects(by_object).text(MEASURES[name].decimals, sign=True), f"{100 * worse:.0f} %"


def over_objects(by_object: Mapping[str, Sequence[float]]) -> Interval:
    """Of the objects' means: the images of one object are alike, so that they count as one."""
    return interval([float(np.mean(values)) for values in by_object.values()])


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


def check_report(folder: Path) -> None:
    """ValueError if `write_report` would replace a file that is not of a report."""
    check_reports(folder, HEADS)
    if (sheet := folder / "sheet.png").exists() and not (folder / "report.md").is_file():
        raise ValueError(
            f"{sheet} is no sheet of a report and would be overwritten; move it, or give another --out"
        )


def write_report(
    folder: Path,
    run: ScoredRun,
    notes: Sequence[str],
    against: ScoredRun | None = None,
    compared: Mapping[str, Sequence[str]] | None = None,
) -> list[Path]:
    """Write the three files, each whole or not at all; returns them. Errors are those of `check_report`.

    `against` is a run of one method; `compared`: methods of this run, each with those it is compared with.
    """
    check_report(folder)
    tables = {
        "Methods": table(run.rows, run.sets),
        "Compared, paired by image": comparison_table(run.rows, compared or {}),
        "By object": table(run.rows, by_object=True),
    }
    if against is not None:
        for method in run.methods:
            own = [row for row in run.rows if row["method"] == method]
            title = f"{method or 'This run'} against {against.source}, paired by image"
            tables[title] = difference_table(own, against.rows)
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


def result_sheet(run: ScoredRun, against: ScoredRun | None = None) -> np.ndarray:
    """A row for each image, the worst first: what it was made from, each method's result; uint8 [H,W,3]."""
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
    roi = plan_roi(images.mask)
    truth = _blank() if images.truth is None else _tile(close_up(images.truth, roi), "")
    reference = _tile(thumbnail(insertion.references.picture(), TILE), insertion.object)
    return [_tile(close_up(images.background, roi), insertion.name), reference, truth]


def _result_tile(insertion: Insertion, row: Row, measure: str) -> np.ndarray:
    result, images = insertion.read()
    value = row["scores"].get(measure)
    label = "" if value is None else f"{value:.{MEASURES[measure].decimals}f}"
    return _tile(close_up(result, plan_roi(images.mask)), label)


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
