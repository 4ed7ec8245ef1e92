"""An insertion as a page asks for it => the command line of scripts/inference.py that does the same.

The studio runs these very words, so what it makes, its recipe and its replay are those of the command line.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.data.files import text_digest, write_file
from ldm.studio.backgrounds import Backgrounds
from ldm.studio.object_files import learnt_from
from ldm.studio.objects import Objects
from ldm.studio.workspace import Workspace, checked_name, shown_path

if TYPE_CHECKING:
    from ldm.data.picture import Picture

MOST_SEEDS = 16  # in one batch
HELP = "the studio"


@dataclass(frozen=True)
class Source:
    """What is inserted: an object file, a reference picture, or both."""

    object: Path | None
    reference: Path | None


@dataclass(frozen=True)
class Insertion:
    """A checked request: files that exist, and settings as `section.key=value`."""

    background: Path
    size: tuple[int, int]  # H, W
    masks: tuple[Path, ...]
    sources: tuple[Source, ...]
    settings: tuple[str, ...]
    seeds: int
    seed: int


@dataclass(frozen=True)
class Plan:
    """The regions x0 y0 x1 y1 to inpaint, and what a person should know, of each placement."""

    rois: tuple[tuple[tuple[int, int, int, int], ...], ...]
    warnings: tuple[tuple[str, ...], ...]

    def warnings_of(self, objects: Sequence[str]) -> list[str]:
        """Each warning once; with the objects that it is about, if there are several placements."""
        about: dict[str, list[str]] = {}
        for number, (name, notes) in enumerate(zip(objects, self.warnings, strict=True), start=1):
            for note in notes:
                about.setdefault(note, []).append(f"object {number} ({name})")
        if len(objects) == 1:
            return list(about)
        return [f"{', '.join(names)}: {note}" for note, names in about.items()]


def insertion_of(
    workspace: Workspace,
    objects: Objects,
    backgrounds: Backgrounds,
    asked: Mapping[str, Any],
    given: Sequence[str],
) -> Insertion:
    """The insertion that a page asks for; `given`: its settings. One-line errors for what does not fit."""
    placements = asked["placements"]
    if not placements:
        raise ValueError("nothing to insert: choose an object and paint a mask")
    if not 1 <= asked.get("seeds", 1) <= MOST_SEEDS:
        raise ValueError(f"seeds={asked['seeds']}: expected 1 to {MOST_SEEDS}")
    about = backgrounds.get(asked["background"])
    return Insertion(
        background=backgrounds.file(asked["background"])[0],
        size=(about["height"], about["width"]),
        masks=tuple(backgrounds.mask_file(asked["background"], p["mask"]) for p in placements),
        sources=tuple(_source(workspace, objects, placement) for placement in placements),
        settings=tuple(given),
        seeds=asked.get("seeds", 1),
        seed=asked.get("seed", 321),
    )


def _source(workspace: Workspace, objects: Objects, placement: Mapping[str, Any]) -> Source:
    """The newest object file of an object, or its reference alone; or the object file that is named."""
    given, photo = placement.get("object") or "", placement.get("reference") or ""
    owner, _, photo = photo.rpartition("/")
    name = owner or given
    if given.endswith(".safetensors"):
        file: Path | None = workspace.inside(given)
        return Source(file, objects.photo(checked_name(owner), photo) if photo else None)
    root = objects.root(checked_name(name))
    learnt = learnt_from(workspace, root)
    reference = objects.photo(name, photo) if photo else None
    if learnt:
        return Source(Path(learnt[0]["file"]), reference)
    return Source(None, reference or objects.thumb(name))


def with_own_masks(insertion: Insertion, folder: Path) -> Insertion:
    """The same with copies of its masks in `folder`: those of the background may be drawn over."""
    folder.mkdir(parents=True, exist_ok=True)
    copies = tuple(folder / f"mask_{number}.png" for number, _ in enumerate(insertion.masks, start=1))
    for mask, copy in zip(insertion.masks, copies, strict=True):
        shutil.copyfile(mask, copy)
    return replace(insertion, masks=copies)


def command_words(insertion: Insertion, workspace: Workspace, outdir: Path, scenes: Path) -> list[list[str]]:
    """The words of each call of scripts/inference.py: one, or for scenes one for each seed.

    Scene files are written into the folder `scenes`.
    """
    common = ["--config", shown_path(workspace.config)]
    end = [*insertion.settings, "--outdir", shown_path(outdir), "--no-contact_sheet"]
    if len(insertion.masks) > 1:
        files = _scene_files(insertion, workspace, scenes)
        return [
            [*common, "--scene", shown_path(file), "--seed", str(seed), *end] for seed, file in files.items()
        ]
    [mask], [source] = insertion.masks, insertion.sources
    what = [("--object", source.object), ("--reference", source.reference)]
    where = [("--example_img", insertion.background), ("--mask", mask)]
    files_given = [word for flag, file in (*what, *where) if file for word in (flag, shown_path(file))]
    seeds = ["--n_samples", str(insertion.seeds)] if insertion.seeds > 1 else []
    return [[*common, *files_given, *seeds, "--seed", str(insertion.seed), *end]]


def shell_command(calls: Sequence[Sequence[str]]) -> str:
    """What does the same in a shell, one line for each call."""

    def line(words: Sequence[str]) -> str:
        # inference.sh has a default object, which a reference alone does not replace
        own = "--object" in words or "--scene" in words
        return f"{'bash inference.sh' if own else 'python scripts/inference.py'} {shlex.join(words)}"

    return "\n".join(line(words) for words in calls)


def plan(calls: Sequence[Sequence[str]], size: tuple[int, int]) -> Plan:
    """The regions of these calls on a background of size (H, W), without model and background."""
    from ldm.batch.runner import plan_request
    from ldm.config.build import insert_options, make_fill
    from ldm.config.inference_cli import items_of, options_of, parse, scene_of
    from ldm.insertion.roi import cautions
    from ldm.scenes.layout import groups, place

    args, config = parse(calls[0], HELP)
    insert_options(config), make_fill(config)  # settings that exclude each other
    options, picture = options_of(args, config), _stand_in(size)
    if args.scene is None:
        [item] = items_of(args, config)
        item.source.check()
        mask = item.masked.mask_on(picture, options.mask_options)
        made = [(mask, plan_request(item, mask, options.crop_context).rois)]
    else:
        placed = place(scene_of(args, config), picture, options.mask_options, options.crop_context)
        groups(placed)
        made = [(one.mask, list(one.rois)) for one in placed]
    side = options.crop_context.model_side
    notes = tuple(tuple(cautions(mask, rois, side)) for mask, rois in made)
    return Plan(tuple(tuple(rois) for _, rois in made), notes)


def _stand_in(size: tuple[int, int]) -> Picture:
    """A picture of this size (H, W) that takes no memory: masks need no more of their background."""
    import numpy as np

    from ldm.data.picture import Picture

    return Picture(np.broadcast_to(np.zeros((1, 1, 1), np.uint8), (*size, 1)))


def _scene_files(insertion: Insertion, workspace: Workspace, folder: Path) -> dict[int, Path]:
    """Seed => the scene file of this insertion, written into `folder`.

    Placements whose regions are apart share a batch; another sees what was placed before it.
    """
    from ldm.batch.work_item import MaskedBackground

    name, several = MaskedBackground(insertion.background).name, insertion.seeds > 1
    orders: Sequence[int] = range(len(insertion.masks))
    files: dict[int, Path] = {}
    for seed in range(insertion.seed, insertion.seed + insertion.seeds):
        file = folder / f"{name}{f'_{seed}' if several else ''}.yaml"
        if not files:
            _write_scene(insertion, file, orders)
            call = ["--config", shown_path(workspace.config), "--scene", str(file), *insertion.settings]
            orders = _orders(plan([call], insertion.size).rois)
        _write_scene(insertion, file, orders)
        files[seed] = file
    return files


def _write_scene(insertion: Insertion, file: Path, orders: Sequence[int]) -> None:
    import yaml

    def beside(path: Path) -> str:
        return os.path.relpath(path.resolve(), file.parent.resolve())

    placements = [
        {
            **({"object": beside(source.object)} if source.object else {}),
            **({"reference": beside(source.reference)} if source.reference else {}),
            "mask": beside(mask),
            "order": order,
        }
        for source, mask, order in zip(insertion.sources, insertion.masks, orders, strict=True)
    ]
    values = {"background": beside(insertion.background), "placements": placements}
    write_file(file, yaml.safe_dump(values, sort_keys=False))


def _orders(rois: Sequence[Sequence[tuple[int, int, int, int]]]) -> list[int]:
    """For each placement one more than the highest order of those before it whose regions it touches."""
    orders: list[int] = []
    for i, own in enumerate(rois):
        below = [orders[j] for j in range(i) if any(_meet(a, b) for a in own for b in rois[j])]
        orders.append(1 + max(below) if below else 0)
    return orders


def _meet(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3])


def scene_folder(parent: Path, insertion: Insertion) -> Path:
    """A folder for the scene file of a plan: another one for each scene, since two tabs may plan at once."""
    facts = [
        str(path)
        for path in (*insertion.masks, *(p for s in insertion.sources for p in (s.object, s.reference)))
    ]
    return parent / text_digest([*facts, insertion.settings])[:12]
