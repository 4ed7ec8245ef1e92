"""Repeat a scene from the recipe of its result."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ldm.batch.replay import check_base, check_recipe, check_sources
from ldm.batch.runner import RunOptions
from ldm.batch.work_item import WorkItem
from ldm.data.picture import Picture
from ldm.insertion.object_source import ObjectSource
from ldm.scenes.layout import lay_out
from ldm.scenes.runner import PlacementCache, run_placements
from ldm.scenes.scene_file import Scene, scene_of

if TYPE_CHECKING:
    from ldm.insertion.region import InsertRequest, Result
    from ldm.insertion.session import Session


@dataclass(frozen=True)
class SceneReplay:
    """The result of a scene, its recipe, and the scene; the counterpart of `ItemReplay`."""

    file: Path
    recipe: Mapping[str, Any]
    scene: Scene

    @classmethod
    def of(cls, file: Path, recipe: Mapping[str, Any]) -> SceneReplay:
        """Of a recipe that was read from `file`; ValueError if it is incomplete."""
        check_recipe(file, recipe, ("content", "placements"))
        for record in (recipe, *recipe["placements"]):
            check_sources(file, record)
        sampling = recipe["settings"]["sample"]
        values, path = recipe["content"], Path(recipe["scene"])
        return cls(file, recipe, scene_of(values, path, sampling["seed"], sampling["object_scale"]))

    @property
    def sources(self) -> list[ObjectSource]:
        """The objects that a session needs for it."""
        return [item.source for placement in self.scene.placements for item in placement.items]

    def repeat(self, session: Session, options: RunOptions) -> Picture:
        """Make every placement again, in the same batches and with the seeds that were chosen."""
        check_base(self.file, self.recipe, session)
        records = self.recipe["placements"]
        batches = {record["key"]: record["batch"] for record in records}
        if {key for batch in batches.values() for key in batch} - batches.keys():
            warnings.warn(
                "a part of the scene was made in one batch with placements that were removed since; last "
                "bits may differ",
                stacklevel=2,
            )
        seeds = {record["placement"]: record["seed"] for record in records}

        def same_seed(item: WorkItem, request: InsertRequest, results: list[Result]) -> list[Result]:
            return [result for result in results if result.record["seed"] == seeds[item.name]]

        layout = lay_out(self.scene, options)
        with TemporaryDirectory() as folder:
            cache = PlacementCache(Path(folder))
            options = replace(options, choose=same_seed)
            return run_placements(layout, session, options, cache, batches=batches)[0]
