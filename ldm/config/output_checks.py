"""The files that a run of inference will write: none replaces an input, a file of the user's, or another."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ldm.batch.results_log import COMPARISON, check_log, check_outputs
from ldm.batch.work_item import WorkItem
from ldm.config.schema import Config
from ldm.data.files import check_folder, fitting_name


def check_overwriting(
    args: argparse.Namespace, config: Config, items: Sequence[WorkItem], scene: str = ""
) -> None:
    """ValueError if a picture of this run would replace one of its inputs, a file of the user's, or another.

    `scene`: the name of a scene's result; else each item has results of its own.
    """
    folder = Path(config.insert.outdir)
    _check_not_read(args, folder)
    names = list(_plans(items, scene) if args.plan else _pictures(args, config, items, scene))
    inputs = [path for item in items for path in item.sources().values()]
    inputs += [path for path in (args.manifest, args.list, args.scene) if path is not None]
    check_outputs((folder / name for name in names), inputs)
    [(name, times)] = Counter(names).most_common(1)
    if times > 1:
        raise ValueError(
            f"two pictures of this run would be called {folder / name}; "
            "rename the background, or give its result a name in a manifest"
        )
    if args.plan:
        return
    check_log(folder, inputs)
    if any(item.best for item in items):
        check_folder(folder / "candidates", f"--outdir {folder}")


def _check_not_read(args: argparse.Namespace, folder: Path) -> None:
    """ValueError if the output folder is a folder of inputs: the next run would read results as inputs."""
    bench = [args.bench / "image", args.bench / "mask"] if args.bench else []
    for given in (*(args.example_img or ()), *args.mask, *bench):
        if given.is_dir() and given.resolve() == folder.resolve():
            raise ValueError(
                f"--outdir {folder} is read as a folder of inputs, which its results would join; "
                "give another --outdir"
            )


def _plans(items: Sequence[WorkItem], scene: str) -> Iterator[str]:
    for stem in [scene] if scene else [item.stem for item in items]:
        yield fitting_name(stem, "_plan.png")


def _pictures(
    args: argparse.Namespace, config: Config, items: Sequence[WorkItem], scene: str
) -> Iterator[str]:
    if scene:
        yield f"{scene}.png"
    else:
        yield from (name for item in items for name in item.files().values())
        yield from ["sheet.png"] * config.insert.contact_sheet
    yield from [COMPARISON] * args.compare
    yield from (f"candidates/{fitting_name(item.stem, '.png')}" for item in items if item.best)
