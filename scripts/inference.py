"""Insert an object into backgrounds. Every pixel outside the mask stays as it is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ldm import __version__
from ldm.config import Config, Parser, run
from ldm.data.insertset import load_insertset
from ldm.data.pairs import few_shot_crops, reference_image
from ldm.data.picture import Picture
from ldm.data.save import write_picture
from ldm.insertion.blend import BLENDS
from ldm.insertion.cases import Case, pair, read_roi
from ldm.insertion.insert import Result, Sampling, insert
from ldm.insertion.roi import Roi, covered, crop, plan_rois
from ldm.insertion.sheet import close_up, contact_sheet, hatched, rgb8, thumbnail
from ldm.models.base import Base, base_fingerprint, load_base
from ldm.models.pickles import PICKLES
from ldm.objects.delta import Delta, apply, load
from ldm.objects.exchange import load_ldm_delta

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
SHEET_ROWS = 24  # a contact sheet of more is no longer looked at


def parser() -> Parser:
    p = Parser(__doc__ or "", FLAGS, "configs/mini.yaml")
    p.add_argument("--example_img", "--example-img", nargs="+", type=Path, required=True, metavar="PATH",
                   help="backgrounds: pictures or folders")  # fmt: skip
    p.add_argument("--mask", nargs="+", type=Path, default=[], metavar="PATH",
                   help="where: mask pictures (white: here), .txt box files, or folders")  # fmt: skip
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
    p.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda [auto]"
    )
    return p


def plan(case: Case, roi: Path | None, config: Config) -> list[Roi]:
    """Read and check one case => the squares to inpaint; so every mistake shows before a model is loaded."""
    _, mask = case.read()
    if roi is None:
        return plan_rois(mask, factor=config.insert.roi_factor, min_side=config.base.architecture.image_size)
    given = read_roi(roi)
    if not covered(mask, given):
        raise ValueError(f"{roi}: the square cuts off a part of the mask of {case.background}; enlarge it")
    return [given]


def read_object(args: argparse.Namespace, base: Base) -> Delta | None:
    """The object file, or a .ckpt of the paper's code together with the object's pictures."""
    if args.object is None:
        return None
    if args.object.suffix not in PICKLES:
        return load(args.object)
    if args.dataset_dir is None:
        raise ValueError(f"{args.object} is the paper's format; give its pictures too: --dataset-dir FOLDER")
    crops = few_shot_crops(load_insertset(args.dataset_dir), base.architecture.reference_size)
    return load_ldm_delta(args.object, base, crops, args.few_shot_features)


def read_reference(args: argparse.Namespace, delta: Delta | None, size: int) -> Tensor:
    """[1,3,R,R] in [-1,1]: the picture given, else the object's own."""
    if args.reference is not None:
        return reference_image(args.reference, size)
    if delta is not None and delta.reference is not None:
        return delta.reference[None].float() / 127.5 - 1
    if args.dataset_dir is not None:
        return reference_image(load_insertset(args.dataset_dir).reference, size)
    raise ValueError("no reference picture; give --object FILE or --reference PICTURE")


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
    s, outdir = config.sample, Path(config.insert.outdir)
    cases = pair(args.example_img, args.mask, args.box)
    plans = [plan(case, args.roi, config) for case in cases]
    outdir.mkdir(parents=True, exist_ok=True)
    base = load_base(Path(config.base.path), config.base.architecture)
    fingerprint = base_fingerprint(base)
    delta = read_object(args, base)
    if delta is not None:
        apply(base, delta, s.strength, fingerprint)
    base.to(args.device)
    with torch.no_grad():
        reference = read_reference(args, delta, base.architecture.reference_size)
        contexts = base.contexts(base.context(reference.to(base.device)))
    seeds = [s.seed + i for i in range(s.n_samples)]
    rows: list[list[np.ndarray]] = []
    for case, rois in zip(tqdm(cases, unit="picture", disable=len(cases) < 4), plans, strict=True):
        background, mask = case.read()
        sampling = Sampling(s.sampler, s.steps, s.scale)
        results = insert(base, contexts, background, mask, rois, seeds, sampling, BLENDS[config.insert.blend])
        for result in results:
            seed = f"_{result.record['seed']}" if len(seeds) > 1 else ""
            file = outdir / f"{case.name}{seed}.png"
            write_picture(file, result.picture, recipe(case, result, args, config, fingerprint))
            tqdm.write(f"{file}: {result.record['seconds']:.1f} s")
        if config.insert.grid and len(rows) < SHEET_ROWS:
            rows.append(sheet_row(background, mask, rois[0], results))
    if rows:
        captions = ["background", "mask", *(f"seed {seed}" for seed in seeds), "composite"]
        write_picture(outdir / "sheet.png", Picture(contact_sheet(rows, captions)))
        print(f"{outdir / 'sheet.png'}: contact sheet")


if __name__ == "__main__":
    run(main)
