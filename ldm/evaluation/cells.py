"""What all cells of a reproduction share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ldm import __version__
from ldm.data.files import file_digest, text_digest
from ldm.data.insertset import InsertSet
from ldm.data.picture import Picture
from ldm.data.picture_write import embedded_text, write_picture
from ldm.evaluation.ablations import Variant
from ldm.evaluation.compare import learnt
from ldm.evaluation.insertion import Insertion, References
from ldm.evaluation.judge import scores_of
from ldm.evaluation.judges import Judges
from ldm.evaluation.methods import PASTES, subject_of
from ldm.evaluation.publish import row_of
from ldm.evaluation.sites import Ground, Site
from ldm.evaluation.summary import Row
from ldm.insertion.crop_plan import Context, regions_of
from ldm.insertion.insert import insert
from ldm.insertion.region import InsertRequest
from ldm.insertion.region_fill import ReadyObject
from ldm.insertion.roi import Roi
from ldm.insertion.session import Session
from ldm.models.base import Base
from ldm.models.inpainting_model import InpaintingModel

Learn = Callable[[InsertSet, Mapping[str, Any], Path], None]  # object, settings that differ, its file
Changes = Mapping[str, Any]  # dotted settings that differ, as {"sample.steps": 12}


@dataclass(frozen=True, eq=False)
class Study:
    """What all cells share: base, regions; who judges; how to learn, with which settings.

    `insert_settings`: changes => all plain values that say how to insert; `open_session`: changes => a session
    on the base, and the model to sample with, in its precision.
    """

    folder: Path
    base: Base
    fingerprint: str
    context: Context
    judges: Judges
    metrics: Collection[str]
    learn: Learn
    settings: Mapping[str, Any]
    insert_settings: Callable[[Changes], Mapping[str, Any]]
    open_session: Callable[[Changes], tuple[Session, InpaintingModel]]
    seed: int = 321


Fill = Callable[[Picture, np.ndarray, Sequence[Roi]], Picture]
KEY = "row"  # of the text that a picture carries


@dataclass(frozen=True, eq=False)
class Cell:
    """One variant on one object of one ground."""

    study: Study
    variant: Variant
    ground: Ground
    object: str

    @property
    def insertset(self) -> InsertSet:
        """What this variant may learn from."""
        full = self.ground.objects[self.object]
        few_shot = full.few_shot[: self.variant.images or None]
        return replace(full, few_shot=few_shot, same_category=full.same_category * self.variant.same_category)

    @property
    def sites(self) -> list[Site]:
        return self.ground.of(self.object)

    @property
    def object_file(self) -> Path:
        """Named by all that it depends on beside the pictures, so that variants share what they can."""
        name = text_digest(self.made_by)[:16]
        return self.study.folder / "objects" / self.ground.name / self.object / f"{name}.safetensors"

    def picture(self, site: Site) -> Path:
        """Where a result is."""
        own = Path(self.variant.name, self.ground.name, self.object, f"{site.name}.png")
        return self.study.folder / "results" / own

    @property
    def made_by(self) -> dict[str, Any]:
        """All that the object file depends on, beside its pictures."""
        settings = dict(self.study.settings) | dict(self.variant.learning)
        few_shot, same_category = self.insertset.few_shot, self.insertset.same_category
        pictures = {"images": len(few_shot), "same_category": len(same_category)}
        return {"settings": settings | pictures, "base": self.study.fingerprint}

    @property
    def learnt_already(self) -> bool:
        """Is there nothing to learn before sites are filled?"""
        return self.variant.kind != "learnt" or self.object_file.is_file()

    def missing(self) -> list[Site]:
        """The sites without a result by this recipe."""
        recipe = self.recipe() if self.learnt_already else None
        return [site for site in self.sites if recipe is None or self._row(site, recipe) is None]

    def rows(self) -> list[Row]:
        """The rows of the sites that are done."""
        if not self.learnt_already:
            return []
        recipe = self.recipe()
        return [row for site in self.sites if (row := self._row(site, recipe))]

    def run(self) -> Iterator[Row]:
        """Learn and fill what is missing; yields its rows."""
        if not self.missing():
            return
        seconds = None
        if self.variant.kind == "learnt":
            seconds = learnt(self.object_file, self.insertset, "", self._learn, self.made_by)
        recipe, facts = self.recipe(), {} if seconds is None else {"learning_seconds": seconds}
        with self._prepared() as fill:
            for site in self.missing():
                yield self._make(site, fill, recipe, facts)

    def insertion(self, site: Site, facts: Mapping[str, float] | None = None) -> Insertion:
        """A result as it is judged and shown."""
        known = self.ground.objects[self.object]
        return Insertion(
            f"{self.object}/{site.name}",
            self.object,
            self.picture(site),
            site.case,
            References(known.reference, known.few_shot),
            self.variant.name,
            self.study.fingerprint if self.variant.kind in ("learnt", "zero-shot") else "none",
            rois=site.rois,
            truth=site.truth,
            object_mask=site.object_mask,
            facts=dict(facts or {}),
        )

    def recipe(self) -> dict[str, Any]:
        """All that a result depends on, beside its site; another version may draw and judge otherwise."""
        study, kind = self.study, self.variant.kind
        made: dict[str, Any] = {"kind": kind, "metrics": sorted(study.metrics), "version": __version__}
        if kind in ("learnt", "zero-shot"):
            made |= {"base": study.fingerprint, "seed": study.seed, "context": asdict(study.context)}
            made |= {"settings": study.insert_settings(self.variant.insertion)}
        if kind == "learnt":
            made["object"] = file_digest(self.object_file)[:16]
        return json.loads(json.dumps(made))  # as it comes back from a picture

    def _row(self, site: Site, recipe: Mapping[str, Any]) -> Row | None:
        path = self.picture(site)
        row = json.loads(embedded_text(path).get(KEY, "{}")) if path.is_file() else {}
        return row if row.get("recipe") == recipe else None

    def _learn(self, insertset: InsertSet, _: str, file: Path) -> None:
        self.study.learn(insertset, self.variant.learning, file)

    def _make(self, site: Site, fill: Fill, recipe: Mapping[str, Any], facts: Mapping[str, float]) -> Row:
        """Insert, judge and keep one result; the picture is written last, with its row."""
        background, (hole, mask) = site.case.read()
        rois = site.rois or tuple(regions_of(hole, self.study.context))
        start = time.perf_counter()
        picture = fill(background, mask, rois)
        seconds = {"seconds": round(time.perf_counter() - start, 3)} | dict(facts)
        path = self.picture(site)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, picture)  # judged as it was written
        insertion = replace(self.insertion(site, seconds), rois=rois)
        scores = scores_of(insertion, insertion.read(), self.study.metrics, self.study.judges)
        row = {**row_of(insertion, scores, self.study.judges.names), "recipe": recipe}
        write_picture(path, picture, {KEY: json.dumps(row)})
        return row

    @contextmanager
    def _prepared(self) -> Iterator[Fill]:
        """How a site is filled; the base is as before when the block ends."""
        kind, insertset = self.variant.kind, self.insertset
        if paste := PASTES.get(kind):
            yield lambda background, mask, _: paste(insertset.reference, background, mask)
            return
        session, model = self.study.open_session(self.variant.insertion)
        contexts, fill = session.ready(subject_of(kind, insertset, self.object_file))
        ready = ReadyObject(contexts.to(model.unet.conv_in.weight), fill)

        def sampled(background: Picture, mask: np.ndarray, rois: Sequence[Roi]) -> Picture:
            request = InsertRequest(mask, mask, rois, [self.study.seed])
            [[result]] = insert(model, background, [request], [ready], session.options)
            return result.picture

        yield sampled
        session.put_down()


def cells_of(study: Study, variants: Mapping[str, Variant], grounds: Sequence[Ground]) -> list[Cell]:
    """Object by object, so that whatever is done is a comparison."""
    return [
        Cell(study, variant, g, name) for g in grounds for name in g.objects for variant in variants.values()
    ]
