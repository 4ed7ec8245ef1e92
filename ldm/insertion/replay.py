"""A result made again: its recipe, read from the picture, says how, and what must not have changed since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm.data.digest import file_digest
from ldm.data.picture import Picture
from ldm.insertion.cases import Case
from ldm.insertion.item import Item
from ldm.insertion.journal import recipe_in
from ldm.insertion.roi import Roi
from ldm.insertion.subject import Subject
from ldm.insertion.work import Inserter, Options, prepare

if TYPE_CHECKING:
    from ldm.insertion.insert import Result

NEEDED = ("key", "settings", "sha256", "seed", "batch", "base_fingerprint", "machine", "few_shot_features")


@dataclass(frozen=True)
class Replay:
    """A result file, its recipe, and the item whose seeds are the whole batch that it was made in."""

    file: Path
    recipe: Mapping[str, Any]
    item: Item


def read_replay(file: Path) -> Replay:
    """Read a result's recipe and check that its files are what they were; one-line errors else."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; give a result to make again")
    recipe = recipe_in(file)
    if "scene" in recipe:
        raise ValueError(f"{file}: is of a scene; make it again by --scene {recipe['scene']}")
    if missing := [name for name in NEEDED if name not in recipe]:
        raise ValueError(f"{file}: carries no recipe to repeat ({', '.join(missing)} missing); give a result")
    for role, digest in recipe["sha256"].items():
        path = Path(recipe[role])
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such {role}; {file} was made with it, put it back there")
        if file_digest(path) != digest:
            raise ValueError(f"{path}: this {role} has changed since {file} was made; put the old one back")
    return Replay(file, recipe, _item(recipe))


def repeat(replay: Replay, inserter: Inserter, options: Options) -> Result:
    """Make the result again, in the batch that it was made in; ValueError if the base is another one."""
    made, recipe = replay.recipe["base_fingerprint"], replay.recipe
    if inserter.fingerprint != made:
        raise ValueError(
            f"{replay.file} was made with the base {made}, this one is {inserter.fingerprint}; "
            "give the old one: --base PATH"
        )
    background, mask, rois = prepare(replay.item, options)
    results = inserter.insert(replay.item.subject, background, mask, rois, replay.item.seeds)
    return next(result for result in results if result.record["seed"] == recipe["seed"])


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


def _item(recipe: Mapping[str, Any]) -> Item:
    paths = {role: Path(recipe[role]) for role in recipe["sha256"]}
    case = Case(paths["background"], paths.get("mask"), tuple(recipe["box"]))
    object_, reference, pictures = (paths.get(role) for role in ("object", "reference", "pictures"))
    subject = Subject(object_, reference, recipe["strength"], pictures, recipe["pick"])
    roi = None if recipe["roi"] is None else Roi(*recipe["roi"])
    return Item(case, subject, tuple(recipe["batch"]), roi, recipe["name"], recipe["best_of"] > 1)
