"""Results on a benchmark => report.md, a table with 95 % intervals, and sheet.png, a row for each site."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ldm.data.files import atomic_file
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import write_picture
from ldm.evaluation.benchmark import Benchmark, SiteImages
from ldm.evaluation.methods import Method
from ldm.evaluation.metrics import MEASURES
from ldm.evaluation.results import Row
from ldm.evaluation.tables import cell, interval, markdown, measured, pairs
from ldm.insertion.contact_sheet import close_up, contact_sheet

IDENTITY = ("v2/identity", "v2/identity_mean")  # the first of these that a row has stands on its tile
COLUMNS = (
    *IDENTITY, "v2/psnr_object", "v2/psnr_region", "v2/ssim_object", "v2/ssim_region", "v2/seam",
    "v2/seconds", "v2/learning_seconds", "v2/outside",
)  # fmt: skip
TILE, BAR = 192, 17  # pixels


def write_report(
    folder: Path, benchmark: Benchmark, methods: Sequence[Method], rows: Sequence[Row], note: str = ""
) -> tuple[Path, Path]:
    """Write report.md and sheet.png of these methods' rows into a folder."""
    text, sheet = folder / "report.md", folder / "sheet.png"
    with atomic_file(text) as file:
        parts = [heading(benchmark, note), table(methods, rows), *paired(rows, "crossattn-kv", "merged")]
        file.write("\n\n".join([*parts, "![all sites](sheet.png)\n"]).encode())
    write_picture(sheet, Picture(site_sheet(benchmark, methods, rows)))
    return text, sheet


def heading(benchmark: Benchmark, note: str = "") -> str:
    """What the table is about."""
    size = f"{len(benchmark.sites)} sites of {len(benchmark.objects)} objects"
    about = (
        f"Protocol `v2` on {benchmark.name}, {size}; mean over sites [95 % bootstrap interval]. Identity is "
        "the cosine of ImageNet features of the object's box, result against truth; PSNR and SSIM are "
        "against the truth, inside the object's silhouette and inside the inpainted region."
    )
    return f"# Insertion\n\n{about} {note}".rstrip()


def table(methods: Sequence[Method], rows: Sequence[Row]) -> str:
    """One Markdown line for each method that has rows."""
    names = [name for name in COLUMNS if name in measured(rows)]
    lines = [["method", "sites", *(MEASURES[name].title for name in names)]]
    for method in methods:
        if own := [row for row in rows if row["method"] == method.name]:
            lines.append([method.title, str(len(own)), *(cell(own, name) for name in names)])
    return markdown(lines)


def paired(rows: Sequence[Row], before: str, after: str) -> list[str]:
    """A sentence on how identity differs between two methods, site by site; none if one was not run."""
    own = [[row for row in rows if row["method"] == method] for method in (after, before)]
    values = pairs(*own).get(IDENTITY[0])
    if values is None:
        return []
    difference = interval(values[:, 0] - values[:, 1]).text(3, sign=True)
    return [f"Identity of `{after}` minus that of `{before}`, site by site ({len(values)}): {difference}."]


def site_sheet(benchmark: Benchmark, methods: Sequence[Method], rows: Sequence[Row]) -> np.ndarray:
    """A row for each site: background, truth, and each method's result with its identity, uint8 [H,W,3]."""
    known = {(row["method"], row["name"]): row for row in rows}
    lines = []
    for site in benchmark.sites:
        images = site.read()
        tiles = [_tile(images.background, images, site.name)]
        tiles.append(_blank() if images.truth is None else _tile(images.truth, images, site.object))
        for method in methods:
            row = known.get((method.name, site.name))
            tiles.append(_blank() if row is None else _result_tile(row, images))
        lines.append(tiles)
    return contact_sheet(lines, ["background", "truth", *(method.name for method in methods)], TILE)


def _result_tile(row: Row, images: SiteImages) -> np.ndarray:
    scores = [row["scores"][name] for name in IDENTITY if name in row["scores"]]
    return _tile(read_picture(Path(row["result"])), images, f"{scores[0]:.2f}" if scores else "")


def _tile(picture: Picture, images: SiteImages, label: str) -> np.ndarray:
    """A site's first region of a picture, TILE px wide, with a label along its foot."""
    pixels = close_up(picture, images.rois[0])
    shrinks = pixels.shape[0] > TILE
    small = cv2.resize(pixels, (TILE, TILE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    tile = Image.fromarray(small)
    draw = ImageDraw.Draw(tile)
    draw.rectangle((0, TILE - BAR, TILE, TILE), fill=(255, 255, 255))
    draw.text((4, TILE - BAR + 1), label, (40, 40, 40), ImageFont.load_default(12))
    return np.asarray(tile)


def _blank() -> np.ndarray:
    return np.full((TILE, TILE, 3), 255, np.uint8)
