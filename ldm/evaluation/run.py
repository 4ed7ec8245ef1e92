"""The engine: a method on an object of a benchmark => results at all its sites, none of them made twice.

An object is learnt once for all methods with the same settings; a result is kept with its recipe, all that it
depends on, as soon as it is made.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ldm import __version__
from ldm.batch.results_log import SHEET, check_outputs
from ldm.data.files import file_digest, text_digest, write_file
from ldm.data.insertset import InsertSet
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture
from ldm.evaluation.benchmark import Benchmark, Site, SiteImages
from ldm.evaluation.methods import PASTES, Method, sample, show_ceiling, source_of
from ldm.evaluation.metrics import scores_of
from ldm.evaluation.networks import FeatureNetworks
from ldm.evaluation.posed import paste_posed
from ldm.evaluation.results import Insertion, Results, Row, references_of, row_of
from ldm.insertion.roi import CropContext
from ldm.insertion.session import Session
from ldm.models.base import Base
from ldm.models.inpainting_model import InpaintingModel

Changes = Mapping[str, Any]  # settings that differ from the run's
Learn = Callable[[InsertSet, Changes, Path], None]  # object, changed settings of training, its file
Fill = Callable[[SiteImages], Picture]


@dataclass(frozen=True, eq=False)
class Setup:
    """What all runs share: the base, how objects are learnt and inserted, and how results are scored.

    `training` are the settings of learning, `insert_settings`: changes => all settings of inserting, as plain
    values; `open_session`: changes => a session on the base, and the model to sample with, in its precision.
    """

    folder: Path
    base: Base
    fingerprint: str
    context: CropContext
    networks: FeatureNetworks
    metrics: Collection[str]
    learn: Learn
    training: Mapping[str, Any]
    insert_settings: Callable[[Changes], Mapping[str, Any]]
    open_session: Callable[[Changes], tuple[Session, InpaintingModel]]
    seed: int = 321
    object_scale: float = 1.0

    @cached_property
    def results(self) -> Results:
        """The folder's results."""
        return Results(self.folder)


@dataclass(frozen=True, eq=False)
class MethodRun:
    """One method on one object of a benchmark."""

    setup: Setup
    method: Method
    benchmark: Benchmark
    object: str

    @property
    def insertset(self) -> InsertSet:
        """The pictures that the method may learn from."""
        whole = self.benchmark.objects[self.object]
        few_shot = whole.few_shot[: self.method.images or None]
        same_category = whole.same_category if self.method.same_category else whole.same_category[:0]
        return replace(whole, few_shot=few_shot, same_category=same_category)

    @property
    def sites(self) -> list[Site]:
        """The object's sites, with its posed cut-out only if the method is given it."""
        sites = self.benchmark.sites_of(self.object)
        return sites if self.method.posed else [replace(site, posed=None) for site in sites]

    @property
    def learns_from(self) -> dict[str, Any]:
        """All that the object file depends on."""
        settings = dict(self.setup.training) | dict(self.method.learning)
        pictures = text_digest(self.insertset.digests())
        return {"settings": settings, "base": self.setup.fingerprint, "pictures": pictures}

    @property
    def object_file(self) -> Path:
        """Named by what it depends on, so that methods share what they can."""
        folder = self.setup.folder / "objects" / self.benchmark.name
        return folder / self.object / f"{text_digest(self.learns_from)[:16]}.safetensors"

    @property
    def is_learnt(self) -> bool:
        """Is there nothing to learn before sites can be filled?"""
        return not self.method.is_trained or self.object_file.is_file()

    def missing(self) -> list[Site]:
        """The sites without a result by this recipe."""
        return [site for site in self.sites if not self.is_learnt or self._row(site) is None]

    def rows(self) -> list[Row]:
        """The rows of the sites that are done."""
        return [row for site in self.sites if self.is_learnt and (row := self._row(site))]

    def insertions(self) -> list[Insertion]:
        """The results of the sites that are done, one for each of `rows`."""
        references = references_of(self.benchmark.objects[self.object])
        return [self.setup.results.insertion(row, references) for row in self.rows()]

    def make(self) -> Iterator[Row]:
        """Learn the object and fill the sites, as far as they are missing; yields the new rows."""
        if not self.missing():
            return
        facts = {"learning_seconds": self._learn()} if self.method.is_trained else {}
        with self._prepared() as fill:
            for site in self.missing():
                yield self._make(site, fill, facts)

    def recipe(self, site: Site) -> dict[str, Any]:
        """All that a site's result depends on; another version may draw and score otherwise."""
        setup, method = self.setup, self.method
        made: dict[str, Any] = {"kind": method.kind, "metrics": sorted(setup.metrics), "version": __version__}
        if method.kind not in PASTES:
            made["base"] = setup.fingerprint
        if method.is_sampled:
            made |= {"seed": setup.seed, "context": asdict(setup.context)}
            made["settings"] = setup.insert_settings(method.insertion)
        if method.posed:
            made["posed"] = True
        if method.is_trained:
            made |= {"object": file_digest(self.object_file)[:16], "object_scale": setup.object_scale}
        known = text_digest(self.benchmark.objects[self.object].digests())
        made["pictures"] = text_digest([known, *map(file_digest, site.files())])[:16]
        return json.loads(json.dumps(made))  # as it is read from a file: lists for tuples

    def _row(self, site: Site) -> Row | None:
        results = self.setup.results
        return results.row(results.path(self.method.name, self.benchmark, site), self.recipe(site))

    def _learn(self) -> float:
        """Make the object file, unless it and its note exist => the seconds that learning took."""
        file, note = self.object_file, self.object_file.with_suffix(".json")
        if not (file.is_file() and note.is_file()):  # killed between the two: no note
            file.parent.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            self.setup.learn(self.insertset, self.method.learning, file)
            seconds = {"seconds": round(time.perf_counter() - start, 2)}
            write_file(note, json.dumps(seconds | self.learns_from))
        return json.loads(note.read_text("utf-8"))["seconds"]

    @contextmanager
    def _prepared(self) -> Iterator[Fill]:
        """How the method fills a site; the base has its own weights again when the block ends."""
        setup, kind, insertset = self.setup, self.method.kind, self.insertset
        if self.method.posed and kind in PASTES:
            yield lambda images: paste_posed(images.posed, images.background, images.mask)
            return
        if paste := PASTES.get(kind):
            yield lambda images: paste(insertset.reference, images.background, images.mask)
            return
        if kind == "ceiling":
            yield partial(show_ceiling, setup.base)
            return
        session, model = setup.open_session(self.method.insertion)
        file = self.object_file if self.method.is_trained else None

        def fill(images: SiteImages) -> Picture:
            reference = images.posed.picture if images.posed else None
            ready = session.ready(source_of(insertset, file, setup.object_scale, reference))
            return sample(session, model, ready, images, setup.seed)

        try:
            yield fill
        finally:
            session.unload_object()

    def _make(self, site: Site, fill: Fill, facts: Mapping[str, float]) -> Row:
        """Insert, score and keep one result."""
        setup, recipe = self.setup, self.recipe(site)
        images = site.read(context=setup.context)
        start = time.perf_counter()
        picture = fill(images)
        seconds = round(time.perf_counter() - start, 3)
        known = self.benchmark.objects[self.object]
        insertion = Insertion(
            site=replace(site, rois=images.rois),
            references=references_of(known),
            result=setup.results.path(self.method.name, self.benchmark, site),
            method=self.method.name,
            model=recipe.get("base", "none"),
            facts={"seconds": seconds, **facts},
        )
        write_picture(insertion.result, picture, SHEET)  # it is scored as a reader of the file sees it
        scores = scores_of(insertion, setup.metrics, setup.networks)
        row = {**row_of(insertion, scores, setup.networks.names), "recipe": recipe}
        setup.results.add(insertion, picture, row | {"references": str(known.root)})
        return row


def runs_of(setup: Setup, methods: Collection[Method], benchmarks: Sequence[Benchmark]) -> list[MethodRun]:
    """All runs, object by object, so that what is done at any time compares methods.

    ValueError if a result would replace one of their inputs, or a picture that this program did not write.
    """
    runs = [
        MethodRun(setup, method, benchmark, name)
        for benchmark in benchmarks
        for name in benchmark.objects
        for method in methods
    ]
    sites = [site for benchmark in benchmarks for site in benchmark.sites]
    inputs = [
        path for site in sites for path in (site.masked.background, site.masked.mask, site.truth) if path
    ]
    results = (setup.results.path(one.method.name, one.benchmark, site) for one in runs for site in one.sites)
    check_outputs(results, inputs, "another --out")
    return runs
