"""Repeat a result, also of a scene, from the recipe in its image's metadata, and compare the pixels."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm import __version__
from ldm.batch.results_log import CUT_OUT_NETWORK, recipe_in
from ldm.batch.runner import RunOptions, prepare
from ldm.batch.work_item import MaskedBackground, WorkItem
from ldm.data.boxes import parse_box
from ldm.data.failure import check_file
from ldm.data.files import file_digest
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import write_picture
from ldm.insertion.object_source import ObjectSource
from ldm.scenes.layout import lay_out
from ldm.scenes.runner import PlacementCache, run_placements
from ldm.scenes.scene_file import Scene, scene_of

if TYPE_CHECKING:
    from ldm.insertion.region import InsertRequest, Result
    from ldm.insertion.session import Session

NEEDED = ("key", "settings", "sha256", "base_fingerprint", "machine")


@dataclass(frozen=True)
class Replay:
    """A result, its recipe, and what it was made of: a scene, or an item with all seeds of its batch."""

    file: Path
    recipe: Mapping[str, Any]
    made: WorkItem | Scene

    @classmethod
    def of(cls, file: Path, recipe: Mapping[str, Any]) -> Replay:
        """Of a recipe that was read from `file`; ValueError if it is incomplete."""
        is_scene = "scene" in recipe
        check_recipe(file, recipe, ("content", "placements") if is_scene else ("seed", "batch"))
        for record in (recipe, *recipe.get("placements", ())):
            check_sources(file, record)
        if not is_scene:
            return cls(file, recipe, _item(recipe))
        sampling = recipe["settings"]["sample"]
        scene = scene_of(recipe["content"], Path(recipe["scene"]), sampling["seed"], sampling["object_scale"])
        return cls(file, recipe, scene)

    @property
    def sources(self) -> list[ObjectSource]:
        """The objects that a session needs for it."""
        items = self.made.items if isinstance(self.made, Scene) else [self.made]
        return [item.source for item in items]

    def repeat(self, session: Session, options: RunOptions) -> Picture:
        """Make the result again, in its batches: alone, sums of floats may round differently."""
        check_base(self.file, self.recipe, session)
        if isinstance(self.made, Scene):
            return _repeated(self.made, self.recipe["placements"], session, options)
        background, request = prepare(self.made, options)
        self.made.source.check()
        [results] = session.insert(background, [request])
        return next(result for result in results if result.record["seed"] == self.recipe["seed"]).picture


def _repeated(
    scene: Scene, records: Sequence[Mapping[str, Any]], session: Session, options: RunOptions
) -> Picture:
    """Make every placement again, in the same batches and with the seeds that were chosen."""
    batches = {record["key"]: record["batch"] for record in records}
    if {key for batch in batches.values() for key in batch} - batches.keys():
        warnings.warn(
            "a part of the scene was made in one batch with placements that were removed since; last "
            "bits may differ",
            stacklevel=3,
        )
    seeds = {record["placement"]: record["seed"] for record in records}

    def same_seed(item: WorkItem, request: InsertRequest, results: list[Result]) -> list[Result]:
        return [result for result in results if result.record["seed"] == seeds[item.name]]

    layout, options = lay_out(scene, options), replace(options, choose=same_seed)
    with TemporaryDirectory() as folder:
        return run_placements(layout, session, options, PlacementCache(Path(folder)), batches=batches)[0]


def write_replay(found: Replay, session: Session, options: RunOptions, file: Path) -> str:
    """Repeat a result into `file` => how its pixels differ from the result's, in words; "" if they do not."""
    write_picture(file, found.repeat(session, options), {"recipe": json.dumps(found.recipe)})
    return difference(read_picture(found.file), read_picture(file))


def read_recipe(file: Path, project: Path = Path()) -> dict[str, Any]:
    """The recipe of a result; one-line errors if there is none.

    A relative path that leads nowhere from here is meant from the `project`, as scripts write it there.
    """
    check_file(file, "a file", "give a result to repeat")
    recipe = recipe_in(file)
    check_recipe(file, recipe, ())
    placements = [_placed(record, project) for record in recipe.get("placements", ())]
    return _placed(recipe, project) | ({"placements": placements} if placements else {})


def _placed(record: Mapping[str, Any], project: Path) -> dict[str, Any]:
    """A record with its paths made those of the project if they lead nowhere."""
    roles = [role for role in (*record["sha256"], "scene") if role in record]
    return {
        **record,
        **{role: str(project / record[role]) for role in roles if not Path(record[role]).exists()},
    }


def check_recipe(file: Path, recipe: Mapping[str, Any], more: tuple[str, ...]) -> None:
    """ValueError if a recipe lacks an entry."""
    if missing := [name for name in (*NEEDED, *more) if name not in recipe]:
        raise ValueError(
            f"{file}: has no recipe to repeat ({', '.join(missing)} missing); give a result of inference.sh"
        )


def check_sources(file: Path, record: Mapping[str, Any]) -> None:
    """One-line errors if a file that a record names is missing or has changed since `file` was made."""
    for role, digest in record["sha256"].items():
        path = Path(record[role])
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such {role}; {file} was made with it, put it back there")
        if file_digest(path) != digest:
            raise ValueError(f"{path}: this {role} has changed since {file} was made; put the old one back")


def check_base(file: Path, recipe: Mapping[str, Any], session: Session) -> None:
    """ValueError if the result was made with another base."""
    made = recipe["base_fingerprint"]
    if session.fingerprint != made:
        raise ValueError(
            f"{file} was made with the base {made}, this one is {session.fingerprint}; "
            "give the old one: --base PATH"
        )


def replay_warnings(recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    """Reasons why pixels may differ although no input has changed; `facts`: those of a result made now."""
    if (version := recipe.get("version", "unknown")) != __version__:
        yield f"made by version {version}, this is {__version__}; pixels may differ"
    if recipe["machine"] != facts["machine"]:
        yield f"made on another machine, last bits may differ: {recipe['machine']}"
    if recipe.get(CUT_OUT_NETWORK, there := facts.get(CUT_OUT_NETWORK)) != there:
        yield "made with another matting.safetensors; pixels may differ if the object has no silhouette"


def difference(one: Picture, other: Picture) -> str:
    """How two images differ, in words; "" if they do not."""
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


def _item(recipe: Mapping[str, Any]) -> WorkItem:
    paths = {role: Path(recipe[role]) for role in recipe["sha256"]}
    masked = MaskedBackground(paths["background"], paths.get("mask"), tuple(recipe["box"]))
    object_, reference, pictures = (paths.get(role) for role in ("object", "reference", "pictures"))
    source = ObjectSource(object_, reference, recipe["object_scale"], pictures, recipe["pick"])
    roi = None if recipe["roi"] is None else parse_box(recipe["roi"], "roi")
    return WorkItem(masked, source, tuple(recipe["batch"]), roi, recipe["name"], recipe["best_of"] > 1)
