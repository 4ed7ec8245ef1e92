"""The command line of inference: arguments and settings => work items, run options, a session."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.batch.manifest import COLUMNS, bench_backgrounds, read_manifest
from ldm.batch.results_log import COMPARISON, check_log, check_outputs
from ldm.batch.runner import RunOptions
from ldm.batch.work_item import MaskedBackground, WorkItem, pair
from ldm.config.build import NOT_PIXELS, base_settings, crop_context_of, from_sections, segmenter_digest
from ldm.config.cli import INFERENCE, INSERTION_FLAGS
from ldm.config.loader import ROOT, rooted
from ldm.config.parser import SettingsParser
from ldm.config.process import gc_frozen
from ldm.config.schema import Config, load_config
from ldm.config.training_sections import EXTRACTED_SUFFIX
from ldm.data.boxes import Box, parse_box, read_box_file
from ldm.data.files import check_folder, fitting_name
from ldm.data.insertset import check_outside
from ldm.insertion.mask_input import MaskOptions
from ldm.insertion.object_source import ObjectSource, extracted
from ldm.models.runtime import device_named, machine
from ldm.scenes.replay import Replay, read_recipe
from ldm.scenes.scene_file import Scene, read_scene

if TYPE_CHECKING:
    from ldm.insertion.session import Session

WORK = ("example_img", "manifest", "bench", "scene", "replay")
PARTS = ("mask", "box", "roi", "object", "pick", "reference", "dataset_dir")
EXCLUDED: dict[str, tuple[str, ...]] = {
    "example_img": ("list",),
    "manifest": ("mask", "box", "list"),
    "bench": ("mask", "box"),
    "scene": ("list", "compare", *PARTS),
    "replay": ("list", "plan", "compare", *PARTS),
}
HINTS = {
    "example_img": "it belongs to --bench",
    "manifest": "write a mask or box into each line",
    "bench": "its masks are in mask/",
    "scene": "write it into the scene file",
    "replay": "give only --base, --outdir and --device",
}

# a default of inference.sh is dropped if one of these flags or settings is given
GIVES_WAY = {
    "object": ("scene", "replay"),
    "example_img": WORK[1:],
    "mask": (*WORK, "box", "mask_channel", "mask.channel"),
    "outdir": ("object", "reference", "scene", "manifest"),
}

SHORT_HELP = {
    "what to insert": ("object", "reference"),
    "where": ("example_img", "mask", "box"),
    "how many results": ("n_samples", "seed", "outdir"),
    "how it looks": ("guidance_scale", "object_scale", "keep_scene", "blend"),
    "speed": ("preset", "steps"),
}
MORE_HELP = """Many images: --manifest FILE or --bench FOLDER; several objects: --scene FILE.
--plan shows the regions without a model; --replay FILE repeats a result.
--config YAML chooses base and recipe; inference.sh without flags inserts the demo object.
"""


def given_path(text: str) -> Path:
    """A path of the command line, relative to the user's folder."""
    return Path(rooted(text, Path.cwd()))


def parser(description: str) -> SettingsParser:
    """All flags of inference."""
    p = SettingsParser(
        description, INSERTION_FLAGS, "configs/mini.yaml", presets=INFERENCE, gives_way=GIVES_WAY,
        short_help=SHORT_HELP, more_help=MORE_HELP,
    )  # fmt: skip
    for name, kind, help in (
        ("manifest", "FILE", f".csv or .jsonl file of many insertions, columns {', '.join(COLUMNS)}"),
        ("bench", "FOLDER", "test bench: image/, mask/ and a list file"),
        ("list", "FILE", "list file of the bench: each line begins with an id [the .txt file in it]"),
        ("object", "FILE", "object file, or its run folder; without it (scripts/inference.py): zero-shot"),
        ("dataset-dir", "FOLDER", "the object's folder of pictures, which a .ckpt of the paper's code needs"),
        ("reference", "IMAGE", "reference image [the object file's own]"),
        ("scene", "FILE", "scene file: one background, several placements (examples/scene.yaml)"),
        ("replay", "FILE", "repeat a result by its recipe: <outdir>/<name>_replay.png"),
    ):
        p.add_argument(*dict.fromkeys([f"--{name}", f"--{name.replace('-', '_')}"]), type=given_path,
                       metavar=kind, help=help)  # fmt: skip
    for name, default, help in (
        ("example_img", None, "backgrounds: images or folders"),
        ("mask", [], "where to insert: mask images (white), .txt boxes, .json polygons, or folders"),
    ):
        p.add_argument(*dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"]), nargs="+",
                       type=given_path, default=default, metavar="PATH", help=help)  # fmt: skip
    p.add_argument("--box", nargs="+", default=[], metavar="X0 Y0 X1 Y1",
                   help="where to insert, in pixels of the background as viewers show it")  # fmt: skip
    p.add_argument("--roi", nargs="+", default=[], metavar="FILE",
                   help="the square region to inpaint: a file, or x0 y0 x1 y1 [planned]")  # fmt: skip
    p.add_argument("--pick", default="", metavar="NAME", help="an object of a merged file")
    p.add_argument("--plan", action="store_true",
                   help="only print the regions and draw them: <outdir>/<name>_plan.png")  # fmt: skip
    p.add_argument("--compare", action="store_true",
                   help="also draw cut-out and base before learning (needs --object)")  # fmt: skip
    p.add_argument("--device", metavar="NAME", help="cpu or cuda [cuda if there is one]")
    return p


def parse(argv: Sequence[str] | None, description: str) -> tuple[argparse.Namespace, Config]:
    """Command line => arguments and settings; ValueError if flags exclude each other."""
    args, config = parser(description).parse_config(argv)
    given = [name for name in WORK if getattr(args, name) is not None]
    if len(given) != 1:
        raise ValueError(
            f"expected one of {', '.join(f'--{name}' for name in WORK)}; given: {', '.join(given) or 'none'}"
        )
    [work] = given
    if excluded := [name for name in EXCLUDED[work] if getattr(args, name)]:
        raise ValueError(f"--{excluded[0]} does not go with --{work}; {HINTS[work]}")
    if args.scene and config.mask.channel == "background":
        raise ValueError(f"--mask_channel background does not go with --scene; {HINTS['scene']}")
    s = config.sample
    if min(s.best_of, s.n_samples) != 1 or (args.scene and max(s.best_of, s.n_samples) > 1):
        raise ValueError(
            f"n_samples={s.n_samples}, best_of={s.best_of}: give only one of them; in a scene file, write n"
        )
    check_folder(Path(config.insert.outdir), f"--outdir {config.insert.outdir}")
    check_outside(Path(config.insert.outdir), f"--outdir {config.insert.outdir}")
    args.device = device_named(args.device)
    if args.object is not None and args.object.is_dir():
        run = args.object
        asked = EXTRACTED_SUFFIX[config.extract.format]
        args.object = extracted(run, (asked, *EXTRACTED_SUFFIX.values()))
        if args.object.suffix == EXTRACTED_SUFFIX["ldm"] and (run / "config.yaml").is_file():
            args.dataset_dir = args.dataset_dir or Path(load_config(run / "config.yaml").data.root)
    return args, config


def parse_replay(
    argv: Sequence[str] | None, args: argparse.Namespace, description: str
) -> tuple[Replay, Config]:
    """The result to repeat, and the settings it was made with; `args` gets its device if there is one."""
    recipe = read_recipe(args.replay, ROOT)
    found = Replay.of(args.replay, recipe)
    saved, then = recipe["settings"], recipe["machine"]
    given, config = parser(description).parse_config(argv, saved)
    if pixel_settings(load_config(saved)) != pixel_settings(config):
        raise ValueError(f"--replay repeats a result with its own settings; {HINTS['replay']}")
    if given.device is None:
        with suppress(ValueError):  # this machine does not have it
            args.device = device_named(then["device"])
    return found, config


def items_of(args: argparse.Namespace, config: Config) -> list[WorkItem]:
    """The work items of the command line."""
    s, transparent = config.sample, config.mask.channel == "background"
    source = ObjectSource(
        object=args.object, reference=args.reference, object_scale=s.object_scale,
        pictures=args.dataset_dir, pick=args.pick,
    )  # fmt: skip
    seeds = tuple(s.seed + i for i in range(max(s.n_samples, s.best_of)))
    like = WorkItem(MaskedBackground(Path()), source, seeds, roi_given(args.roi), best=s.best_of > 1)
    if args.manifest is not None:
        items = read_manifest(args.manifest, like, transparent)
    else:
        found = bench_backgrounds(args.bench, args.list) if args.bench else []
        box = parse_box(" ".join(args.box), "--box") if args.box else ()
        found = found or pair(args.example_img, args.mask, box, transparent)
        items = [replace(like, masked=masked) for masked in found]
    return items


def roi_given(words: Sequence[str]) -> Box | None:
    """The region of --roi, a file or four numbers; None if nothing is given."""
    if len(words) == 1 and (len(re.split(r"[\s,;]+", words[0])) < 4 or given_path(words[0]).is_file()):
        return read_box_file(given_path(words[0]))
    return parse_box(" ".join(words), "--roi") if words else None


def check_overwriting(
    args: argparse.Namespace, config: Config, items: Sequence[WorkItem], scene: str = ""
) -> None:
    """ValueError if a picture of this run would replace one of its inputs, a file of the user's, or another.

    `scene`: the name of a scene's result; else each item has results of its own.
    """
    folder = Path(config.insert.outdir)
    bench = [args.bench / "image", args.bench / "mask"] if args.bench else []
    for given in (*(args.example_img or ()), *args.mask, *bench):
        if given.is_dir() and given.resolve() == folder.resolve():
            raise ValueError(
                f"--outdir {folder} is read as a folder of inputs, which its results would join; "
                "give another --outdir"
            )
    names = list(_pictures(args, config, items, scene))
    inputs = [path for item in items for path in item.sources().values()]
    inputs += [path for path in (args.manifest, args.list, args.scene) if path is not None]
    check_outputs((folder / name for name in names), inputs)
    [(name, times)] = Counter(names).most_common(1)
    if times > 1:
        raise ValueError(
            f"two pictures of this run would be called {folder / name}; "
            "rename the background, or give its result a name in a manifest"
        )
    if not args.plan:
        check_log(folder, inputs)
        if any(item.best for item in items):
            check_folder(folder / "candidates", f"--outdir {folder}")


def _pictures(
    args: argparse.Namespace, config: Config, items: Sequence[WorkItem], scene: str
) -> Iterator[str]:
    """The names of all pictures that the run writes."""
    if args.plan:
        yield from (
            fitting_name(stem, "_plan.png") for stem in ([scene] if scene else (i.stem for i in items))
        )
        return
    if scene:
        yield f"{scene}.png"
    else:
        yield from (name for item in items for name in item.files().values())
        yield from ["sheet.png"] * config.insert.contact_sheet
    yield from [COMPARISON] * args.compare
    yield from (f"candidates/{fitting_name(item.stem, '.png')}" for item in items if item.best)


def options_of(args: argparse.Namespace, config: Config) -> RunOptions:
    """How the work items are run."""
    i, cut_out_by = config.insert, segmenter_digest(config)
    return RunOptions(
        crop_context=crop_context_of(config),
        mask_options=from_sections(MaskOptions, config.mask),
        settings=pixel_settings(config) | cut_out_by,
        facts={"machine": machine(args.device), "settings": asdict(config), **cut_out_by},
        batch_size=i.batch_size,
        max_seam=i.max_seam,
        contact_sheet=i.contact_sheet,
        cache_bytes=i.cache_mb * 1e6,
    )


def pixel_settings(config: Config) -> dict[str, Any]:
    """The settings that determine pixels, besides the work item and the weights of the base."""
    settings: dict[str, Any] = base_settings(config)
    for section in ("sample", "insert", "mask"):
        values = asdict(getattr(config, section))
        settings[section] = {k: v for k, v in values.items() if k not in NOT_PIXELS.get(section, ())}
    return settings


def scene_of(args: argparse.Namespace, config: Config) -> Scene:
    """The scene file; placements without seed or object_scale take those of the settings."""
    return read_scene(args.scene, config.sample.seed, config.sample.object_scale)


def session_of(args: argparse.Namespace, config: Config, sources: Iterable[ObjectSource]) -> Session:
    """Load the parts of the base that these objects need."""
    with gc_frozen():
        from ldm.config.build import open_session

        return open_session(config, sources, args.device)


def session_for_items(
    args: argparse.Namespace, config: Config, options: RunOptions, items: Sequence[WorkItem]
) -> tuple[Session, RunOptions]:
    """A session for these items; with best_of the options also get what chooses the best result."""
    session = session_of(args, config, [item.source for item in items])
    if not any(item.best for item in items):
        return session, options
    from ldm.batch.best_of import BestOfSeeds
    from ldm.features.imagenet import ImageNetFeatures, likeness

    sheets = Path(config.insert.outdir) / "candidates"
    choose = BestOfSeeds(partial(likeness, ImageNetFeatures()), session.reference, sheets)
    return session, replace(options, choose=choose)
