"""Insert an object into backgrounds. Every pixel outside the mask stays as it is.

Exit code: 0 all is fine, 1 a seam is above insert.max_seam, 2 a mistake before anything was made,
10 + n: n items (at most 100 are told apart) could not be read and were skipped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from ldm.command_line import say, warnings_in_a_line
from ldm.config import Config, Parser, load_config, run
from ldm.data.picture import read_picture
from ldm.data.save import write_picture
from ldm.insertion.best import Chooser, Likeness
from ldm.insertion.blend import BLENDS
from ldm.insertion.cases import Case, pair, read_roi
from ldm.insertion.item import Item, check_files
from ldm.insertion.journal import Journal
from ldm.insertion.machine import machine
from ldm.insertion.manifest import bench_cases, read_manifest
from ldm.insertion.marking import MaskTools
from ldm.insertion.overlay import overlay
from ldm.insertion.plan import Context, lines, plan, scaling
from ldm.insertion.replay import Replay, apart, read_replay, repeat
from ldm.insertion.sheet import Gallery
from ldm.insertion.subject import Subject
from ldm.insertion.tally import Tally
from ldm.insertion.work import MISTAKES, Options, Outcome, prepare, view, work

if TYPE_CHECKING:  # what loads a model is imported when one is loaded: --plan answers at once
    from ldm.insertion.session import Session

FLAGS = {
    "base": "base.path",
    "sampler": "sample.sampler",
    "steps": "sample.steps",
    "scale": "sample.scale",
    "n_samples": "sample.n_samples",
    "best_of": "sample.best_of",
    "seed": "sample.seed",
    "strength": "sample.strength",
    "roi_factor": "insert.roi_factor",
    "context_px": "insert.context_px",
    "zoom": "insert.zoom",
    "blend": "insert.blend",
    "max_seam": "insert.max_seam",
    "outdir": "insert.outdir",
    "grid": "insert.grid",
    "mask_channel": "mask.channel",
    "threshold": "mask.threshold",
    "invert": "mask.invert",
    "fill_holes": "mask.fill_holes",
    "grow": "mask.grow",
}
# settings that do not change a result's pixels, or that its own item says
INCIDENTAL = {
    "sample": ("n_samples", "best_of", "seed", "strength"),
    "insert": ("outdir", "grid", "max_seam"),
}
WORK = ("example_img", "manifest", "bench", "replay")
PARTS = ("mask", "box", "list", "roi", "object", "reference", "dataset_dir", "plan")


def parser() -> Parser:
    p = Parser(__doc__ or "", FLAGS, "configs/mini.yaml")
    p.add_argument("--example_img", "--example-img", nargs="+", type=Path, metavar="PATH",
                   help="backgrounds: pictures or folders")  # fmt: skip
    p.add_argument("--mask", nargs="+", type=Path, default=[], metavar="PATH",
                   help="where: mask pictures (white: here), .txt box, .json polygons, folders")  # fmt: skip
    p.add_argument("--box", nargs=4, type=float, default=[], metavar=("X0", "Y0", "X1", "Y1"),
                   help="where to insert, in pixels of the background")  # fmt: skip
    p.add_argument("--manifest", type=Path, metavar="FILE",
                   help=".csv or .jsonl: background, mask or box, object, reference, seed, name")  # fmt: skip
    p.add_argument("--bench", type=Path, metavar="FOLDER", help="test bench: image/, mask/ and a list file")
    p.add_argument("--list", type=Path, metavar="FILE", help="ids of the test bench, one a line [its .txt]")
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
    p.add_argument("--replay", type=Path, metavar="FILE",
                   help="make a result again by its recipe: <outdir>/<name>_replay.png")  # fmt: skip
    p.add_argument("--device", help="cpu or cuda [cuda if there is one]")
    return p


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Config, Replay | None]:
    """Command line => arguments and settings; a result that is made again brings those it was made with."""
    args, config = parser().parse_config(argv)
    found = None
    if args.replay is not None:
        found = read_replay(args.replay)
        saved, config = (
            load_config(found.recipe["settings"]),
            parser().parse_config(argv, found.recipe["settings"])[1],
        )
        given = [name for name in (*WORK[:-1], *PARTS) if getattr(args, name)]
        if given or determining(saved) != determining(config):
            raise ValueError(
                "--replay repeats a result as it was; only --base, --outdir and --device go with it"
            )
        args.few_shot_features = found.recipe["few_shot_features"]
        args.device = args.device or found.recipe["machine"]["device"]
        torch.set_num_threads(found.recipe["machine"]["threads"])  # sums of floats depend on it
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return args, config, found


def items_of(args: argparse.Namespace, config: Config) -> list[Item]:
    """The work that the command line asks for, checked as a list."""
    if sum(getattr(args, name) is not None for name in WORK) != 1:
        raise ValueError(f"nothing to work on; give one of {', '.join(f'--{name}' for name in WORK)}")
    if args.example_img is None and (args.mask or args.box):
        raise ValueError("--mask and --box go with --example_img; lists of work have their own")
    s, transparent = config.sample, config.mask.channel == "background"
    subject = Subject(args.object, args.reference, s.strength, args.dataset_dir)
    if min(s.best_of, s.n_samples) != 1:
        raise ValueError(
            f"n_samples={s.n_samples}, best_of={s.best_of}: expected at least 1, and one of them 1"
        )
    seeds = tuple(s.seed + i for i in range(max(s.n_samples, s.best_of)))
    like = Item(Case(Path()), subject, seeds, args.roi and read_roi(args.roi), best=s.best_of > 1)
    if args.manifest is not None:
        items = read_manifest(args.manifest, like, transparent)
    else:
        cases = bench_cases(args.bench, args.list) if args.bench else []
        cases = cases or pair(args.example_img, args.mask, args.box, transparent)
        items = [replace(like, case=case) for case in cases]
    check_files(items)
    return items


def options_of(args: argparse.Namespace, config: Config) -> Options:
    """How items are worked on."""
    i, features = config.insert, {"few_shot_features": args.few_shot_features}
    context = Context(config.base.architecture.image_size, i.roi_factor, i.context_px, i.zoom)
    facts = {"machine": machine(args.device), "settings": asdict(config), **features}
    return Options(context, MaskTools(**asdict(config.mask)), determining(config) | features, facts)


def determining(config: Config) -> dict[str, Any]:
    """The settings that determine a result's pixels, beside its item and the base's weights."""
    settings: dict[str, Any] = {"model_side": config.base.architecture.image_size}
    for section in ("sample", "insert", "mask"):
        values = asdict(getattr(config, section))
        settings[section] = {k: v for k, v in values.items() if k not in INCIDENTAL.get(section, ())}
    return settings


def show_plan(item: Item, options: Options, outdir: Path) -> None:
    """Print the regions of one item and draw them."""
    background, mask, rois = prepare(item, options)
    planned = plan(mask, rois, options.context.model_side)
    print(f"{item.stem}:", *lines(planned), sep="\n")
    texts = [scaling(region) for region in planned.regions]
    file = outdir / f"{item.stem}_plan.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_picture(file, overlay(background, mask, rois, texts))
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


def likeness_score() -> Likeness:
    """How the best of several seeds is told: by ImageNet features."""
    from ldm.evaluation.metrics import likeness
    from ldm.models.imagenet import ImageNetFeatures

    return partial(likeness, ImageNetFeatures())


def announce(outcome: Outcome, journal: Journal) -> None:
    if outcome.error:
        tqdm.write(f"skipped {outcome.item.stem}: {outcome.error}", file=sys.stderr)
    for seed, file in outcome.files.items() if not outcome.error else ():
        done = f"{outcome.seconds / len(outcome.made):.1f} s" if seed in outcome.made else "is there already"
        tqdm.write(f"{journal.folder / file}: {done}, seam {journal.seam(file):.2f}")


def captions(items: Sequence[Item]) -> list[str]:
    """Of results on a contact sheet: their seeds where all items have the same."""
    first = items[0]
    alike = not first.best and all(item.seeds == first.seeds for item in items)
    return [f"seed {seed}" if alike else "result" for seed in first.files()]


def insert_all(items: Sequence[Item], session: Session, options: Options, config: Config) -> Tally:
    """Make what is missing in the folder of results, and a contact sheet of the first ones."""
    journal, tally = Journal(Path(config.insert.outdir)), Tally(config.insert.max_seam)
    gallery = Gallery()
    for outcome in work(tqdm(items, unit="picture", disable=len(items) < 4), session, options, journal):
        announce(outcome, journal)
        tally.add(outcome, journal)
        if config.insert.grid and not gallery.full and not outcome.error:
            seen = view(outcome, options, journal.folder)
            gallery.add(seen.background, seen.mask, seen.rois[0], seen.results)
    if gallery.rows:
        sheet = journal.folder / "sheet.png"
        write_picture(sheet, gallery.picture(captions(items)))
        print(f"{sheet}: contact sheet")
    return tally


def show_plans(items: Sequence[Item], options: Options, config: Config, strict: bool) -> Tally:
    """The plan of every item; what cannot be read is skipped unless the few files were named."""
    tally = Tally()
    for item in items:
        try:
            show_plan(item, options, Path(config.insert.outdir))
        except MISTAKES as error:
            if strict:
                raise
            tally.skipped += 1
            say(f"skipped {item.stem}: {error}")
    return tally


def replay(found: Replay, args: argparse.Namespace, config: Config) -> int:
    """Make a result again and compare; the exit code is 1 if a pixel differs."""
    options = options_of(args, config)
    if (then := found.recipe["machine"]) != options.facts["machine"]:
        say(f"warning: made on another machine, last bits may differ: {then}")
    result = repeat(found, open_session(args, config), options)
    file = Path(config.insert.outdir) / f"{found.file.stem}_replay.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_picture(file, result.picture, {"recipe": json.dumps(found.recipe)})
    difference = apart(read_picture(found.file), read_picture(file))
    print(f"{file}: {f'{difference} from' if difference else 'the same pixels as'} {found.file}")
    return int(bool(difference))


def main(argv: list[str] | None = None) -> None:
    with warnings_in_a_line():
        args, config, found = parse(argv)
        if found is not None:
            raise SystemExit(replay(found, args, config))
        items, options = items_of(args, config), options_of(args, config)
        strict = args.example_img is not None and not any(path.is_dir() for path in args.example_img)
        if args.plan:
            tally = show_plans(items, options, config, strict)
        else:
            if args.manifest is None:
                items[0].subject.check()
            for item in items if strict else ():  # every mistake shows before a model is loaded
                prepare(item, options)
            like = likeness_score() if config.sample.best_of > 1 else None
            session = open_session(args, config)
            if like is not None:
                sheets = Path(config.insert.outdir) / "candidates"
                options = replace(options, choose=Chooser(like, session.reference, sheets))
            if args.manifest is None:
                session.take_on(items[0].subject)
            tally = insert_all(items, session, options, config)
    for line in tally.complaints():
        say(line)
    if tally.exit_code:
        raise SystemExit(tally.exit_code)


if __name__ == "__main__":
    run(main)
