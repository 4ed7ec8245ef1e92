"""Insert an object into backgrounds: every pixel outside the mask stays as it is."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ldm import __version__
from ldm.config import Config, Parser, run
from ldm.data.pairs import reference_image
from ldm.data.picture import Picture
from ldm.data.save import write_picture
from ldm.insertion.blend import BLENDS
from ldm.insertion.cases import Case, pair, read_roi
from ldm.insertion.insert import Result, Sampling, insert
from ldm.insertion.roi import Roi, plan_rois
from ldm.insertion.sheet import close_up, contact_sheet, hatched, rgb8
from ldm.models.base import Base, base_fingerprint, load_base
from ldm.objects.delta import apply, load

FLAGS = {
    "base": "base.path",
    "sampler": "sample.sampler",
    "steps": "sample.steps",
    "scale": "sample.scale",
    "n_samples": "sample.n_samples",
    "seed": "sample.seed",
    "strength": "sample.strength",
    "roi_factor": "insert.roi_factor",
    "blend": "insert.blend",
    "outdir": "insert.outdir",
}


def parser() -> Parser:
    p = Parser(__doc__ or "", FLAGS, "configs/mini.yaml")
    p.add_argument(
        "--example_img", "--example-img", nargs="+", type=Path, required=True, help="background pictures or folders"
    )
    p.add_argument("--mask", nargs="+", type=Path, default=[], help="masks (white: here), box files or folders")
    p.add_argument("--box", nargs=4, type=float, default=[], metavar=("X0", "Y0", "X1", "Y1"), help="region in pixels")
    p.add_argument("--roi", type=Path, help="file x0 y0 x1 y1: the square to inpaint in, instead of a planned one")
    p.add_argument("--object", type=Path, help="object file (.safetensors); none: the base's zero-shot insertion")
    p.add_argument("--reference", type=Path, help="reference picture; default: the one in the object file")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda [auto]")
    return p


def planned(case: Case, roi: Path | None, config: Config) -> list[Roi]:
    """Read and check one case => its regions, so that every mistake shows before a model is loaded."""
    _, mask = case.read()
    if roi is None:
        return plan_rois(mask, factor=config.insert.roi_factor, min_side=config.base.architecture.image_size)
    given = read_roi(roi)
    outside = mask.copy()
    outside[max(0, given.y0) : given.y1, max(0, given.x0) : given.x1] = False
    if outside.any():
        raise ValueError(f"{roi}: the square leaves part of the mask of {case.background} out; enlarge it")
    return [given]


def load_object(args: argparse.Namespace, base: Base, config: Config) -> torch.Tensor:
    """Apply the object to the base => its context [1,n,d]."""
    size = base.architecture.reference_size
    delta = load(args.object) if args.object else None
    if delta is not None:
        apply(base, delta, config.sample.strength)
    if args.reference:
        reference = reference_image(args.reference, size)
    elif delta is not None:
        reference = delta.reference_image()
    else:
        raise ValueError("neither --object nor --reference is given; what shall be inserted?")
    with torch.no_grad():
        return base.context(reference.to(base.device))


def recipe(case: Case, result: Result, args: argparse.Namespace, config: Config, base: Base) -> dict[str, str]:
    """What is written into a result's metadata: enough to make it again."""
    facts: dict[str, Any] = {
        "version": __version__,
        "background": str(case.background),
        "mask": str(case.mask) if case.mask else list(case.box),
        "object": str(args.object) if args.object else None,
        "reference": str(args.reference) if args.reference else None,
        "base": {"path": config.base.path, "fingerprint": base_fingerprint(base)},
        "sample": vars(config.sample),
        "insert": vars(config.insert),
        **result.record,
    }
    return {"recipe": json.dumps(facts)}


def sheet_row(background: Picture, case: Case, roi: Roi, results: list[Result]) -> list:
    _, mask = case.read()
    before = close_up(background, roi)
    from ldm.insertion.roi import crop

    return [rgb8(background), hatched(before, crop(mask, roi)), *(close_up(r.picture, roi) for r in results)]


def main(argv: list[str] | None = None) -> None:
    args, config = parser().parse_config(argv)
    cases = pair(args.example_img, args.mask, args.box)
    rois = [planned(case, args.roi, config) for case in cases]
    base = load_base(Path(config.base.path), config.base.architecture).to(args.device)
    fingerprinted = base_fingerprint(base)
    context = load_object(args, base, config)
    s, outdir = config.sample, Path(config.insert.outdir)
    seeds = [s.seed + i for i in range(s.n_samples)]
    rows = []
    for case, squares in zip(tqdm(cases, desc="inserting", unit="picture", disable=len(cases) < 2), rois, strict=True):
        background, mask = case.read()
        sampling = Sampling(s.sampler, s.steps, s.scale)
        results = insert(base, context, background, mask, squares, seeds, sampling, BLENDS[config.insert.blend])
        for result in results:
            file = outdir / (f"{case.name}.png" if len(seeds) == 1 else f"{case.name}_{result.record['seed']}.png")
            write_picture(file, result.picture, recipe(case, result, args, config, base))
            print(f"{file}: {result.record['seconds']:.1f} s")


if __name__ == "__main__":
    run(main)
