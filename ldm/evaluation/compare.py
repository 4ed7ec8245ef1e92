"""Run methods over a bench: learn, insert, score, keep; what exists is not done again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm.data.files import atomic_file
from ldm.data.insertset import InsertSet
from ldm.evaluation.bench import PROTOCOL, Bench, Scene, score
from ldm.evaluation.methods import LEARNT, MODELLED, PASTED, Fill, Setup, prepared
from ldm.evaluation.results import Results, Row
from ldm.features.imagenet import ImageNetFeatures
from ldm.merge.merge import member, merge
from ldm.merge.merged_file import load_merged, save_merged
from ldm.objects.delta import load
from ldm.objects.object_file import parent_of

Learn = Callable[[InsertSet, str, Path], None]  # object, freeze mode, where the object file goes
Report = Callable[[Row], None]  # told of every new row


def compare(
    bench: Bench,
    methods: Sequence[str],
    setup: Setup,
    results: Results,
    learn: Learn,
    settings: Row | None = None,
    on_row: Report = lambda row: None,
) -> None:
    """Fill every scene by every method and add the rows to `results`.

    `learn` writes the object file `<results>/objects/<object>_<mode>.safetensors`; one that is there already
    is used instead, unless it was learnt here with other `settings` or on another base. `merged` merges those
    of all the bench's objects.
    """
    features = ImageNetFeatures()
    objects = ObjectFiles(results.folder / "objects", bench, setup, learn, settings or {})
    for method in methods:
        for name, insertset in bench.objects.items():
            file, seconds = objects.of(method, name)
            recipe = recipe_of(method, setup, file)
            scenes = [s for s in bench.scenes_of(name) if not results.has(method, s.name, recipe)]
            if not scenes:
                continue
            with prepared(method, setup, insertset, file) as fill:
                for scene in scenes:
                    fixed = {"method": method, "scene": scene.name, "object": name, "protocol": PROTOCOL}
                    fixed["bench"] = str(bench.root)
                    learning = {"learning_seconds": seconds, "recipe": recipe}
                    on_row(_run(scene, fill, features, results, fixed, learning))


@dataclass(frozen=True, eq=False)
class ObjectFiles:
    """The object files of a run: what is missing is learnt, or merged, when it is asked for."""

    folder: Path
    bench: Bench
    setup: Setup
    learn: Learn
    settings: Row

    def of(self, method: str, name: str) -> tuple[Path | None, float | None]:
        """What a method needs of an object, None if nothing, and the seconds that learning it took."""
        if method in LEARNT:
            return self._learnt(name, method)
        if method != "merged":
            return None, 0.0
        found = {each: self._learnt(each, "crossattn-kv") for each in self.bench.objects}
        files = {each: file for each, (file, _) in found.items()}
        return merged_file(self.folder / "merged.safetensors", files, self.setup), found[name][1]

    def _learnt(self, name: str, mode: str) -> tuple[Path, float | None]:
        file = self.folder / f"{name}_{mode}.safetensors"
        made_by = {"settings": dict(self.settings), "base": self.setup.fingerprint}
        return file, learnt(file, self.bench.objects[name], mode, self.learn, made_by)


def learnt(file: Path, insertset: InsertSet, mode: str, learn: Learn, made_by: Row) -> float | None:
    """Learn an object, unless its file is there => the seconds that took, None if the file was given.

    A note beside the file says how it was made; without one the file is taken as it is.
    """
    note = file.with_suffix(".json")
    told: dict[str, Any] = json.loads(note.read_text("utf-8")) if note.is_file() else {}
    if file.is_file() and (not told or told["made_by"] == made_by):
        return told.get("seconds")
    file.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    learn(insertset, mode, file)
    seconds = round(time.perf_counter() - start, 2)
    with atomic_file(note) as out:
        out.write(json.dumps({"seconds": seconds, "made_by": made_by}).encode())
    return seconds


def merged_file(file: Path, objects: Mapping[str, Path], setup: Setup) -> Path:
    """Merge object files, by name, into one, unless it is there, made of these very files."""
    deltas = {name: load(path) for name, path in objects.items()}
    parents = [parent_of(path, deltas[name].metadata) | {"name": name} for name, path in objects.items()]
    if not file.is_file() or load_merged(file).metadata.parents != parents:
        members = [
            member(setup.session.base, delta, name, setup.session.images, parent, setup.fingerprint)
            for (name, delta), parent in zip(deltas.items(), parents, strict=True)
        ]
        save_merged(merge(members)[0], file)
    return file


def recipe_of(method: str, setup: Setup, file: Path | None) -> dict[str, Any]:
    """Everything about a method that a result depends on, beside the scene and the object's pictures."""
    recipe: dict[str, Any] = {} if method in PASTED else {"base": setup.fingerprint}
    if method in MODELLED:
        recipe |= {"settings": dict(setup.settings), "seed": setup.seed}
    if file is not None:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        recipe |= {"strength": setup.object_scale, "object": digest}
    return json.loads(json.dumps(recipe))  # as it will be read again: lists for tuples


def _run(
    scene: Scene, fill: Fill, features: ImageNetFeatures, results: Results, fixed: Row, learning: Row
) -> Row:
    """Insert, score and keep one result."""
    views = scene.read()
    start = time.perf_counter()
    picture = fill(scene, views)
    seconds = round(time.perf_counter() - start, 3)
    row = {**fixed, **score(features, picture, scene, views), "seconds": seconds, **learning}
    results.add(row, picture)
    return row
