"""Insert an object into backgrounds. Every pixel outside the mask stays as it is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from ldm import __version__
from ldm.command_line import warnings_in_a_line
from ldm.config import Config, Parser, run
from ldm.data.picture import Picture
from ldm.data.save import write_picture
from ldm.insertion.blend import BLENDS
from ldm.insertion.cases import Case, pair, read_roi
from ldm.insertion.marking import MaskTools
from ldm.insertion.overlay import labelled, overlay
from ldm.insertion.plan import Context, lines, plan, regions_of, scaling
from ldm.insertion.roi import Roi, covered, crop
from ldm.insertion.sheet import close_up, contact_sheet, hatched, rgb8, thumbnail
from ldm.insertion.subject import Subject

if TYPE_CHECKING:  # what loads a model is imported when one is loaded: --plan answers at once
    from ldm.insertion.insert import Result
    from ldm.insertion.session import Session

FLAGS = {
    "base": "base.path",
    "sampler": "sample.sampler",
    "steps": "sample.steps",
    "scale": "sample.scale",
    "n_samples": "sample.n_samples",
    "seed": "sample.seed",
    "strength": "sample.strength",
    "roi_factor": "insert.roi_factor",
    "context_px": "insert.context_px",
    "zoom": "insert.zoom",
    "blend": "insert.blend",
    "outdir": "insert.outdir",
    "mask_channel": "mask.channel",
    "threshold": "mask.threshold",
    "invert": "mask.invert",
    "fill_holes": "mask.fill_holes",
    "grow": "mask.grow",
}
SHEET_ROWS = 24  # a contact sheet of more is no longer looked at


def parser() -> Parser:
    p = Parser(__doc__ or "", FLAGS, "configs/mini.yaml")
    p.add_argument("--example_img", "--example-img", nargs="+", type=Path, required=True, metavar="PATH",
                   help="backgrounds: pictures or folders")  # fmt: skip
    p.add_argument("--mask", nargs="+", type=Path, default=[], metavar="PATH",
                   help="where: mask pictures (white: here), .txt boxes, .json polygons, or folders")  # fmt: skip
    p.add_argument("--box", nargs=4, type=float, default=[], metavar=("X0", "Y0", "X1", "Y1"),
                   help="where to insert, in pixels of the background")  # fmt: skip
    p.add_argument("--roi", type=Path, metavar="FILE", help="x0 y0 x1 y1 of the square to inpaint [planned]")
    p.add_argument("--object", type=Path, metavar="FILE",
                   help="object file, or a .ckpt of the paper's code; none: zero-shot")  # fmt: skip
    p.add_argument("--dataset-dir", "--dataset_dir", type=Path, metavar="FOLDER",
                   help="the object's InsertSet folder: a .ckpt of the paper's code needs it")  # fmt: skip
    p.add_argument("--few_shot_features", "--few-shot-features", default="raw", choices=["raw", "clip"],
                   help="what CLIP saw when that .ckpt was made [raw, as in the paper's code]")  # fmt: skip
    p.add_argument(
        "--reference", type=Path, metavar="PICTURE", help="reference; default: the object file's own"
    )
    p.add_argument("--plan", action="store_true",
                   help="only print the regions and draw them: <outdir>/<name>_plan.png")  # fmt: skip
    p.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda [auto]"
    )
    return p


def rois_of(case: Case, mask: np.ndarray, roi: Path | None, config: Config) -> list[Roi]:
    """The squares to inpaint: the one given, else planned."""
    if roi is None:
        return regions_of(mask, context_of(config))
    given = read_roi(roi)
    if not covered(mask, given):
        raise ValueError(f"{roi}: the square cuts off a part of the mask of {case.background}; enlarge it")
    return [given]


def context_of(config: Config) -> Context:
    i = config.insert
    return Context(config.base.architecture.image_size, i.roi_factor, i.context_px, i.zoom)


def show_plan(case: Case, args: argparse.Namespace, config: Config) -> None:
    """Print the regions of one case and draw them."""
    background, mask = case.read(MaskTools(**asdict(config.mask)))
    rois = rois_of(case, mask, args.roi, config)
    planned = plan(mask, rois, config.base.architecture.image_size)
    print(f"{case.name}:", *lines(planned), sep="\n")
    texts = [f"{i}: {scaling(region)}" for i, region in enumerate(planned.regions, start=1)]
    file = Path(config.insert.outdir) / f"{case.name}_plan.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_picture(file, labelled(overlay(background, mask, rois), rois, texts))
    print(file)


def open_session(args: argparse.Namespace, config: Config) -> Session:
    """Load the base."""
    from ldm.insertion.insert import Sampling
    from ldm.insertion.session import Session
    from ldm.models.base import load_base

    s = config.sample
    base = load_base(Path(config.base.path), config.base.architecture).to(args.device)
    sampling, seam = Sampling(s.sampler, s.steps, s.scale), BLENDS[config.insert.blend]
    return Session(base, sampling, seam, args.few_shot_features)


def recipe(
    case: Case, result: Result, args: argparse.Namespace, config: Config, fingerprint: str
) -> dict[str, str]:
    """What is written into a result's metadata: how it was made."""
    facts: dict[str, Any] = {"version": __version__, "base_fingerprint": fingerprint, **result.record}
    facts["background"], facts["mask"] = str(case.background), str(case.mask or list(case.box))
    facts["object"], facts["reference"] = str(args.object), str(args.reference)
    facts["settings"] = asdict(config)
    return {"recipe": json.dumps(facts)}


def sheet_row(background: Picture, mask: np.ndarray, roi: Roi, results: Sequence[Result]) -> list[np.ndarray]:
    """Whole background, its region with the hole, the region of every result, the whole first result."""
    hole = hatched(close_up(background, roi), crop(mask, roi))
    row = [
        rgb8(background),
        hole,
        *(close_up(result.picture, roi) for result in results),
        rgb8(results[0].picture),
    ]
    return [thumbnail(pixels) for pixels in row]


def main(argv: list[str] | None = None) -> None:
    args, config = parser().parse_config(argv)
    with warnings_in_a_line():
        insert_all(args, config)


def insert_all(args: argparse.Namespace, config: Config) -> None:
    s, outdir, tools = config.sample, Path(config.insert.outdir), MaskTools(**asdict(config.mask))
    cases = pair(args.example_img, args.mask, args.box, tools.channel == "background")
    if args.plan:
        for case in cases:
            show_plan(case, args, config)
        return
    subject = Subject(args.object, args.reference, s.strength, args.dataset_dir)
    subject.check()
    plans = [rois_of(case, case.read(tools)[1], args.roi, config) for case in cases]
    session = open_session(args, config)
    seeds = [s.seed + i for i in range(s.n_samples)]
    outdir.mkdir(parents=True, exist_ok=True)
    rows: list[list[np.ndarray]] = []
    for case, rois in zip(tqdm(cases, unit="picture", disable=len(cases) < 4), plans, strict=True):
        background, mask = case.read(tools)
        results = session.insert(subject, background, mask, rois, seeds)
        for result in results:
            seed = f"_{result.record['seed']}" if len(seeds) > 1 else ""
            file = outdir / f"{case.name}{seed}.png"
            write_picture(file, result.picture, recipe(case, result, args, config, session.fingerprint))
            tqdm.write(f"{file}: {result.record['seconds']:.1f} s")
        if config.insert.grid and len(rows) < SHEET_ROWS:
            rows.append(sheet_row(background, mask, rois[0], results))
    if rows:
        captions = ["background", "mask", *(f"seed {seed}" for seed in seeds), "composite"]
        write_picture(outdir / "sheet.png", Picture(contact_sheet(rows, captions)))
        print(f"{outdir / 'sheet.png'}: contact sheet")


if __name__ == "__main__":
    run(main)
