"""How good proposed boxes and silhouettes are: object folders with known boxes (and masks) => a table."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ldm.config.process import run
from ldm.data.boxes import Box
from ldm.data.files import check_reports, path_of, write_file
from ldm.data.insertset import load_insertset
from ldm.data.mask_levels import read_silhouette
from ldm.data.picture import OPAQUE, read_rgb
from ldm.prepare.proposal import propose
from ldm.prepare.segmenter import SEGMENTERS, Segmenter, load_segmenter

HEAD = "| object | photos |"  # of the table
HELP = 0.75  # IoU of the box below which a person has to correct it


@dataclass(frozen=True)
class Measured:
    """IoU of each photo: of the box and, where a mask is known, of the silhouettes without and with a box."""

    name: str
    boxes: tuple[float, ...]
    silhouettes: tuple[float, ...]
    in_known_box: tuple[float, ...]


def measure(root: Path, segmenter: Segmenter) -> Measured:
    """Propose for the few-shot photos of an object folder, without their boxes, and compare."""
    samples = load_insertset(root).few_shot
    images = [read_rgb(sample.image) for sample in samples]
    boxes, proposed, prompted = [], [], []
    for sample, image in zip(samples, images, strict=True):
        found = propose(image, segmenter=segmenter)
        boxes.append(box_iou(found.box, sample.boxes[0]))
        if sample.mask is not None:
            truth = read_silhouette(sample.mask) > OPAQUE
            proposed.append(mask_iou(found.silhouette > OPAQUE, truth))
            prompted.append(mask_iou(segmenter(image, sample.boxes[0]) > 0.5, truth))
    return Measured(root.name, tuple(boxes), tuple(proposed), tuple(prompted))


def table(every: Sequence[Measured]) -> str:
    """Markdown: a line an object, the last one all photos together."""
    lines = [
        f"{HEAD} IoU of the box | a person must help (box < {HELP}) | IoU of the silhouette "
        "| in the known box |",
        "|---|---|---|---|---|---|",
    ]
    together = Measured("all", *(_joined(every, key) for key in ("boxes", "silhouettes", "in_known_box")))
    for one in (*every, together):
        help_in = sum(iou < HELP for iou in one.boxes)
        values = [_mean(x) for x in (one.boxes, one.silhouettes, one.in_known_box)]
        lines.append(
            f"| {one.name} | {len(one.boxes)} | {values[0]} | {help_in} | {values[1]} | {values[2]} |"
        )
    return "\n".join(lines) + "\n"


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 .. 1."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    areas = ((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return common / (sum(areas) - common)


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """The same of two masks bool [H,W]."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def _joined(every: Iterable[Measured], key: str) -> tuple[float, ...]:
    return tuple(value for one in every for value in getattr(one, key))


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f}" if values else "-"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=path_of, help="folder of object folders")
    parser.add_argument(
        "--segmenter", default="matting", help=f"{', '.join(SEGMENTERS)}, or an ONNX file [matting]"
    )
    parser.add_argument("--out", type=path_of, default=Path("proposals.md"), help="the table to write")
    args = parser.parse_args(argv)
    roots = sorted(path for path in args.folder.glob("*") if (path / "bbox").is_dir())
    if not roots or args.out.suffix != ".md":
        raise ValueError(f"{args.folder} --out {args.out}: expected object folders in it, and a .md file")
    check_reports(args.out.parent, {args.out.name: HEAD})
    segmenter = load_segmenter(args.segmenter)
    text = table([measure(root, segmenter) for root in tqdm(roots, unit="object", disable=None)])
    write_file(args.out, text)
    print(text, end="")


if __name__ == "__main__":
    run(main)
