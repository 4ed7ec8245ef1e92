"""What the command line of inference asks for: arguments and settings => items to work on, and how."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ldm.batch.manifest import COLUMNS, bench_cases, parse_box, read_manifest
from ldm.batch.replay import Replay, read_replay
from ldm.batch.runner import Options
from ldm.batch.work_item import Case, WorkItem, check_files, pair, read_roi, roi_of
from ldm.config.cli import INFERENCE, INSERTION_FLAGS, uncollected
from ldm.config.command_forms import PUBLISHED_INFERENCE
from ldm.config.loader import place
from ldm.config.schema import EXTRACTED_SUFFIX, Config, Parser, load_config
from ldm.data.files import check_folder
from ldm.insertion.crop_plan import Context
from ldm.insertion.mask_input import MaskOptions
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.roi import Roi
from ldm.models.runtime import device_named, machine
from ldm.scenes.scene_file import Scene, read_scene

if TYPE_CHECKING:
    from ldm.insertion.session import Session


# settings that do not change a result's pixels, or that its own item says
INCIDENTAL = {
    "sample": ("n_samples", "best_of", "seed", "object_scale"),
    "insert": ("outdir", "contact_sheet", "max_seam", "batch_size", "cache_mb"),
}
WORK = ("example_img", "manifest", "bench", "scene", "replay")
PARTS = ("mask", "box", "paste_mask", "roi", "object", "pick", "reference", "dataset_dir")
EXCLUDED: dict[str, tuple[str, ...]] = {
    "example_img": ("list",),
    "manifest": ("mask", "box", "paste_mask", "list"),
    "bench": ("mask", "box", "paste_mask"),
    "scene": ("list", *PARTS),
    "replay": ("list", "plan", *PARTS),
}
HINTS = {
    "example_img": "it belongs to --bench",
    "manifest": "write a mask or box into each line",
    "bench": "its masks are in mask/",
    "scene": "write it into the scene file",
    "replay": "give only --base, --outdir and --device",
}


# what inference.sh inserts, and where, gives way to these
GIVES_WAY = {
    "object": ("scene", "replay"),
    "example_img": WORK[1:],
    "mask": (*WORK, "box", "mask_channel", "mask.channel"),
}


SHORT_HELP = {
    "what to insert": ("object", "reference"),
    "where": ("example_img", "mask", "box"),
    "how many results": ("n_samples", "seed", "outdir"),
    "how it looks": ("guidance_scale", "object_scale", "blend"),
    "speed": ("preset", "steps"),
}
MORE_HELP = """Many images: --manifest FILE or --bench FOLDER; several objects: --scene FILE.
--plan shows the regions without a model; --replay FILE repeats a result.
"""


def given_path(text: str) -> Path:
    """A path of the command line, relative to the user's folder."""
    return Path(place(text, Path.cwd()))


def parser(description: str) -> Parser:
    """All flags of inference."""
    p = Parser(
        description, INSERTION_FLAGS, "configs/mini.yaml", presets=INFERENCE, published=PUBLISHED_INFERENCE,
        gives_way=GIVES_WAY, short_help=SHORT_HELP, more_help=MORE_HELP,
    )  # fmt: skip
    for name, kind, help in (
        ("manifest", "FILE", f".csv or .jsonl file of many insertions, columns {', '.join(COLUMNS)}"),
        ("bench", "FOLDER", "test bench: image/, mask/ and a list file"),
        ("list", "FILE", "list file of the test bench: each line begins with an id [its .txt file]"),
        ("object", "FILE", "object file, or the folder of its training run; none: zero-shot"),
        ("dataset-dir", "FOLDER", "the object's InsertSet folder, which a .ckpt of the paper's code needs"),
        ("reference", "IMAGE", "reference image [the object file's own]"),
        ("scene", "FILE", "scene file: one background, several placements (examples/scene.yaml)"),
        ("replay", "FILE", "repeat a result by its recipe: <outdir>/<name>_replay.png"),
    ):
        p.add_argument(*dict.fromkeys([f"--{name}", f"--{name.replace('-', '_')}"]), type=given_path,
                       metavar=kind, help=help)  # fmt: skip
    for name, default, help in (
        ("example_img", None, "backgrounds: images or folders"),
        ("mask", [], "where to insert: mask images (white), .txt boxes, .json polygons, folders"),
        ("paste_mask", [], "the part of the mask that is pasted; files as for --mask [all of it]"),
    ):
        p.add_argument(*dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"]), nargs="+",
                       type=given_path, default=default, metavar="PATH", help=help)  # fmt: skip
    p.add_argument("--box", nargs=4, type=float, default=[], metavar=("X0", "Y0", "X1", "Y1"),
                   help="where to insert, in pixels of the background")  # fmt: skip
    p.add_argument("--roi", nargs="+", default=[], metavar="FILE",
                   help="the square region to inpaint: a file, or x0 y0 x1 y1 [planned from the mask]")  # fmt: skip
    p.add_argument("--pick", default="", metavar="NAME", help="which object of a merged file")
    p.add_argument("--few_shot_features", "--few-shot-features", default="raw", choices=["raw", "clip"],
                   help="pixels that CLIP saw when a .ckpt of the paper's code was made [raw]")  # fmt: skip
    p.add_argument("--plan", action="store_true",
                   help="only print the regions and draw them: <outdir>/<name>_plan.png")  # fmt: skip
    p.add_argument("--device", help="cpu or cuda [cuda if there is one]")
    return p


def parse(argv: Sequence[str] | None, description: str) -> tuple[argparse.Namespace, Config]:
    """Command line => arguments and settings, checked for what excludes each other."""
    args, config = parser(description).parse_config(argv)
    work = [name for name in WORK if getattr(args, name) is not None]
    if len(work) != 1:
        raise ValueError(f"expected one of {', '.join(f'--{name}' for name in WORK)}; given: {len(work)}")
    strange = [name for name in EXCLUDED[work[0]] if getattr(args, name)]
    if strange:
        raise ValueError(f"--{strange[0]} does not go with --{work[0]}; {HINTS[work[0]]}")
    if args.scene and config.mask.channel == "background":
        raise ValueError(f"--mask_channel background does not go with --scene; {HINTS['scene']}")
    s = config.sample
    if min(s.best_of, s.n_samples) != 1 or (args.scene and max(s.best_of, s.n_samples) > 1):
        raise ValueError(
            f"n_samples={s.n_samples}, best_of={s.best_of}: expected one of them 1, the other 1 or more; "
            "in a scene file, say n"
        )
    check_folder(Path(config.insert.outdir), f"--outdir {config.insert.outdir}")
    args.device = device_named(args.device)
    if args.object is not None and args.object.is_dir():
        args.object, pictures = extracted(args.object, config.extract.format)
        args.dataset_dir = args.dataset_dir or pictures
    return args, config


def extracted(run: Path, format: str) -> tuple[Path, Path | None]:
    """A run folder => the object file that get_deltas wrote there, and its pictures' folder.

    If there is a file of each format, it is the one of `format`. The pictures are those that the run's
    config.yaml names, and only looked up for a .ckpt.
    """
    names = {key: run / (run.resolve().name + suffix) for key, suffix in EXTRACTED_SUFFIX.items()}
    there = [names[key] for key in (format, *names) if names[key].is_file()]
    if not there:
        raise FileNotFoundError(f"{names[format]}: no such file; write it: bash get_deltas.sh --path {run}")
    file, settings = there[0], run / "config.yaml"
    if file.suffix != EXTRACTED_SUFFIX["ldm"] or not settings.is_file():
        return file, None
    return file, Path(load_config(settings).data.root)


def parse_replay(
    argv: Sequence[str] | None, args: argparse.Namespace, description: str
) -> tuple[Replay, Config]:
    """The result to make again and the settings that it was made with; `args` gets its machine, too."""
    found = read_replay(args.replay)
    saved, then = found.recipe["settings"], found.recipe["machine"]
    given, config = parser(description).parse_config(argv, saved)
    if determining(load_config(saved)) != determining(config):
        raise ValueError(f"--replay repeats a result as it was; {HINTS['replay']}")
    args.few_shot_features = found.recipe["few_shot_features"]
    if given.device is None and (then["device"] == "cpu" or torch.cuda.is_available()):
        args.device = then["device"]
    torch.set_num_threads(then["threads"])  # sums of floats depend on it
    return found, config


def items_of(args: argparse.Namespace, config: Config) -> list[WorkItem]:
    """The work that the command line asks for, checked as a list."""
    s, transparent = config.sample, config.mask.channel == "background"
    source = ObjectSource(args.object, args.reference, s.object_scale, args.dataset_dir, args.pick)
    seeds = tuple(s.seed + i for i in range(max(s.n_samples, s.best_of)))
    like = WorkItem(Case(Path()), source, seeds, roi_given(args.roi), best=s.best_of > 1)
    if args.manifest is not None:
        items = read_manifest(args.manifest, like, transparent)
    else:
        cases = bench_cases(args.bench, args.list) if args.bench else []
        cases = cases or pair(args.example_img, args.mask, args.box, transparent, args.paste_mask)
        items = [replace(like, case=case) for case in cases]
    check_files(items)
    return items


def roi_given(words: Sequence[str]) -> Roi | None:
    """The region of --roi: a file's, or four numbers; none if nothing is given."""
    if not words:
        return None
    if len(words) == 1:
        return read_roi(given_path(words[0]))
    return roi_of(parse_box(list(words), "--roi"), "--roi")


def options_of(args: argparse.Namespace, config: Config) -> Options:
    """How items are worked on."""
    i, features = config.insert, {"few_shot_features": args.few_shot_features}
    context = Context(config.base.architecture.image_size, i.roi_factor, i.context_px, i.zoom)
    facts = {"machine": machine(args.device), "settings": asdict(config), **features}
    tools, settings = MaskOptions(**asdict(config.mask)), determining(config) | features
    return Options(context, tools, settings, facts, at_once=i.batch_size)


def determining(config: Config) -> dict[str, Any]:
    """The settings that determine a result's pixels, beside its item and the base's weights."""
    settings: dict[str, Any] = {"model_side": config.base.architecture.image_size}
    for section in ("sample", "insert", "mask"):
        values = asdict(getattr(config, section))
        settings[section] = {k: v for k, v in values.items() if k not in INCIDENTAL.get(section, ())}
    return settings


def scene_of(args: argparse.Namespace, config: Config) -> Scene:
    """The scene file; what its placements do not say is the settings' seed and strength."""
    return read_scene(args.scene, config.sample.seed, config.sample.object_scale)


def session_of(args: argparse.Namespace, config: Config, sources: Iterable[ObjectSource]) -> Session:
    """Load of the base what the subjects need."""
    with uncollected():
        from ldm.config.build import open_session

        return open_session(config, sources, args.device, args.few_shot_features)
