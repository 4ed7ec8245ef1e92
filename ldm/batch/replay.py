"""A result made again: its recipe, read from the picture, says how, and what must not have changed since."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm import __version__
from ldm.batch.results_log import recipe_in
from ldm.batch.runner import Inserter, Options, prepare
from ldm.batch.work_item import Case, WorkItem
from ldm.data.files import file_digest
from ldm.data.picture import Picture, read_picture
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.roi import Roi
from ldm.scenes.layout import groups, place
from ldm.scenes.runner import PlacementCache, run_placements
from ldm.scenes.scene_file import Scene, scene_of

if TYPE_CHECKING:
    from ldm.insertion.region import InsertRequest, Result


NEEDED = ("key", "settings", "sha256", "base_fingerprint", "machine", "few_shot_features")
ITEM, SCENE = ("seed", "batch"), ("content", "placements")


@dataclass(frozen=True)
class Replay:
    """A result file, its recipe, and what was made: a scene, or an item with all seeds of its batch."""

    file: Path
    recipe: Mapping[str, Any]
    work: WorkItem | Scene

    @property
    def sources(self) -> list[ObjectSource]:
        """What a base has to carry for it."""
        if isinstance(self.work, WorkItem):
            return [self.work.source]
        return [item.source for placement in self.work.placements for item in placement.items]


def read_replay(file: Path) -> Replay:
    """Read a result's recipe and check that its files are what they were; one-line errors else."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; give a result to make again")
    recipe = recipe_in(file)
    needed = (*NEEDED, *(SCENE if "scene" in recipe else ITEM))
    if missing := [name for name in needed if name not in recipe]:
        raise ValueError(f"{file}: carries no recipe to repeat ({', '.join(missing)} missing); give a result")
    for record in (recipe, *recipe.get("placements", ())):
        _check_sources(file, record)
    return Replay(file, recipe, _scene(recipe) if "scene" in recipe else _item(recipe))


def repeat(replay: Replay, inserter: Inserter, options: Options) -> Picture:
    """Make the result again, in the batch that it was made in; ValueError if the base is another one."""
    made, recipe, work = replay.recipe["base_fingerprint"], replay.recipe, replay.work
    if inserter.fingerprint != made:
        raise ValueError(
            f"{replay.file} was made with the base {made}, this one is {inserter.fingerprint}; "
            "give the old one: --base PATH"
        )
    if isinstance(work, Scene):
        return _repeat_scene(work, recipe["placements"], inserter, options)
    background, request = prepare(work, options)
    [results] = inserter.insert(background, [request])
    return next(result for result in results if result.record["seed"] == recipe["seed"]).picture


def replay_warnings(recipe: Mapping[str, Any], machine: Mapping[str, Any]) -> Iterator[str]:
    """Why pixels may differ although nothing that the recipe names has changed."""
    if (version := recipe.get("version", "unknown")) != __version__:
        yield f"made by version {version}, this is {__version__}, which may draw otherwise"
    if recipe["machine"] != machine:
        yield f"made on another machine, last bits may differ: {recipe['machine']}"


def apart(one: Picture, other: Picture) -> str:
    """How two pictures differ, in words; "" if they do not."""
    a, b = one.pixels, other.pixels
    if a.shape != b.shape or a.dtype != b.dtype:
        return (
            f"{b.shape[1]} x {b.shape[0]} px of {b.dtype} instead of {a.shape[1]} x {a.shape[0]} of {a.dtype}"
        )
    changed = (a != b).any(axis=2)
    if not changed.any():
        return ""
    most = int(np.abs(a[changed].astype(np.int32) - b[changed]).max())
    return f"{int(changed.sum())} pixels differ, by at most {most} levels"


def _repeat_scene(
    scene: Scene, records: Sequence[Mapping[str, Any]], inserter: Inserter, options: Options
) -> Picture:
    """Every placement anew, in the batches and with the seeds that were chosen then."""
    together = {record["key"]: record["batch"] for record in records}
    if {key for batch in together.values() for key in batch} - together.keys():
        warnings.warn(
            "a part of the scene was made in one batch with what is no longer in it; last bits may differ",
            stacklevel=2,
        )
    seeds = {record["placement"]: record["seed"] for record in records}

    def as_then(item: WorkItem, request: InsertRequest, results: list[Result]) -> list[Result]:
        return [result for result in results if result.record["seed"] == seeds[item.name]]

    before = read_picture(scene.background)
    ordered = groups(place(scene, before, options.tools, options.context))
    with TemporaryDirectory() as folder:
        kept, how = PlacementCache(Path(folder)), replace(options, choose=as_then)
        return run_placements(before, ordered, inserter, how, kept, together=together)[0]


def _check_sources(file: Path, record: Mapping[str, Any]) -> None:
    for role, digest in record["sha256"].items():
        path = Path(record[role])
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such {role}; {file} was made with it, put it back there")
        if file_digest(path) != digest:
            raise ValueError(f"{path}: this {role} has changed since {file} was made; put the old one back")


def _scene(recipe: Mapping[str, Any]) -> Scene:
    sampling = recipe["settings"]["sample"]
    return scene_of(recipe["content"], Path(recipe["scene"]), sampling["seed"], sampling["object_scale"])


def _item(recipe: Mapping[str, Any]) -> WorkItem:
    paths = {role: Path(recipe[role]) for role in recipe["sha256"]}
    case = Case(paths["background"], paths.get("mask"), tuple(recipe["box"]), paths.get("paste_mask"))
    object_, reference, pictures = (paths.get(role) for role in ("object", "reference", "pictures"))
    source = ObjectSource(object_, reference, recipe["object_scale"], pictures, recipe["pick"])
    roi = None if recipe["roi"] is None else Roi(*recipe["roi"])
    return WorkItem(case, source, tuple(recipe["batch"]), roi, recipe["name"], recipe["best_of"] > 1)
