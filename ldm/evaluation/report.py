"""Results => a Markdown table with 95 % intervals, and a sheet that shows every scene by every method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ldm.data.files import atomic_file
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import write_picture
from ldm.evaluation.bench import PROTOCOL, Bench, Scene
from ldm.evaluation.methods import METHODS
from ldm.evaluation.metrics import bootstrap
from ldm.evaluation.results import Results, Row
from ldm.insertion.contact_sheet import close_up, contact_sheet

COLUMNS = {  # score => heading, decimals
    "identity": ("identity", 3),
    "psnr_object": ("PSNR object, dB", 2),
    "psnr_region": ("PSNR region, dB", 2),
    "ssim_object": ("SSIM object", 3),
    "ssim_region": ("SSIM region", 3),
    "seam": ("seam ratio", 2),
    "seconds": ("seconds", 2),
    "learning_seconds": ("learning, s", 0),
}
INTERVALS = tuple(name for name in COLUMNS if not name.endswith("seconds"))
TILE, BAR = 192, 17  # pixels


def write_report(results: Results, bench: Bench, methods: Sequence[str], note: str = "") -> tuple[Path, Path]:
    """Write report.md and sheet.png into the results' folder: these methods on the scenes of the bench."""
    names = {scene.name for scene in bench.scenes}
    rows = [row for row in results.rows if row["scene"] in names and row["method"] in methods]
    text, sheet = results.folder / "report.md", results.folder / "sheet.png"
    with atomic_file(text) as file:
        parts = [heading(bench, note), table(rows), *paired(rows, "crossattn-kv", "merged")]
        file.write("\n\n".join([*parts, "![all scenes](sheet.png)\n"]).encode())
    write_picture(sheet, Picture(scene_sheet(results, bench, methods)))
    return text, sheet


def heading(bench: Bench, note: str = "") -> str:
    """What the table is about."""
    size = f"{len(bench.scenes)} scenes of {len(bench.objects)} objects"
    about = (
        f"Protocol `{PROTOCOL}` on {bench.root.name}, {size}; mean over scenes [95 % bootstrap interval]. "
        "Identity is the cosine of ImageNet features of the object's box, result against truth; PSNR and "
        "SSIM are against the truth, inside the object's silhouette and inside the inpainted region."
    )
    return f"# Insertion\n\n{about} {note}".rstrip()


def table(rows: Sequence[Row]) -> str:
    """One Markdown line for each method that has rows, in the order of METHODS."""
    head = ["method", "scenes", *(title for title, _ in COLUMNS.values()), "changed outside"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for method, title in METHODS.items():
        own = [row for row in rows if row["method"] == method]
        if own:
            outside = f"{max(row['outside'] for row in own):g}"
            lines.append([title, str(len(own)), *(cell(own, name) for name in COLUMNS), outside])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def paired(rows: Sequence[Row], before: str, after: str) -> list[str]:
    """A sentence on how identity differs between two methods, scene by scene; none if one was not run."""
    found = [{row["scene"]: row["identity"] for row in rows if row["method"] == m} for m in (before, after)]
    scenes = found[0].keys() & found[1].keys()
    if not scenes:
        return []
    differences = [found[1][scene] - found[0][scene] for scene in sorted(scenes)]
    low, high = bootstrap(differences)
    change = f"{np.mean(differences):+.3f} [{low:+.3f}, {high:+.3f}]"
    return [f"Identity of `{after}` less that of `{before}`, scene by scene ({len(scenes)}): {change}."]


def cell(rows: Sequence[Row], name: str) -> str:
    """The mean of one score, with its interval; a dash if it is not known."""
    values = [row[name] for row in rows if row[name] is not None]
    decimals = COLUMNS[name][1]
    if not values:
        return "–"
    mean = f"{np.mean(values):.{decimals}f}"
    if name not in INTERVALS:
        return mean
    low, high = bootstrap(values)
    return f"{mean} [{low:.{decimals}f}, {high:.{decimals}f}]"


def scene_sheet(results: Results, bench: Bench, methods: Sequence[str]) -> np.ndarray:
    """A row for each scene: background, truth, and each method's result with its identity, uint8 [H,W,3]."""
    methods = [name for name in METHODS if name in methods]
    identity = {(row["method"], row["scene"]): row["identity"] for row in results.rows}
    rows = []
    for scene in bench.scenes:
        views = scene.read()
        tiles = [_tile(views.background, scene, scene.name), _tile(views.truth, scene, scene.object)]
        for name in methods:
            file = results.picture(name, scene.name)
            score = identity.get((name, scene.name))
            known = file.is_file() and score is not None
            tiles.append(_tile(read_picture(file), scene, f"{score:.2f}") if known else _blank())
        rows.append(tiles)
    return contact_sheet(rows, ["background", "truth", *methods], TILE)


def _tile(picture: Picture, scene: Scene, label: str) -> np.ndarray:
    """The scene's region of a picture, TILE px wide, with a label along its foot."""
    pixels = close_up(picture, scene.roi)
    shrinks = pixels.shape[0] > TILE
    small = cv2.resize(pixels, (TILE, TILE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    tile = Image.fromarray(small)
    draw = ImageDraw.Draw(tile)
    draw.rectangle((0, TILE - BAR, TILE, TILE), fill=(255, 255, 255))
    draw.text((4, TILE - BAR + 1), label, (40, 40, 40), ImageFont.load_default(12))
    return np.asarray(tile)


def _blank() -> np.ndarray:
    return np.full((TILE, TILE, 3), 255, np.uint8)
