"""The engine: every method fills the mask; what was made is not made again; results outlive a stopped run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.image import to_bytes
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import embedded_text
from ldm.evaluation.benchmark import Benchmark, load_benchmark
from ldm.evaluation.methods import METHODS
from ldm.evaluation.metrics import OFFLINE
from ldm.evaluation.networks import load_networks
from ldm.evaluation.results import Results
from ldm.evaluation.run import Setup, runs_of
from ldm.insertion.blend import BLENDS
from ldm.insertion.inpaint import Sampling
from ldm.insertion.insert import InsertOptions
from ldm.insertion.roi import CropContext
from ldm.insertion.session import Session
from ldm.models.base import base_fingerprint, base_state
from ldm.objects.delta import extract, save, trained_names
from ldm.objects.object_file import ObjectMetadata
from tests.fixtures.bench import MASK, write_bench
from tests.fixtures.small import small_base


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    return load_benchmark(write_bench(tmp_path_factory.mktemp("bench") / "mini"))


@pytest.fixture(scope="module")
def shared() -> Setup:
    """A setup without a folder of its own; it learns objects that change K and V a lot."""
    options = InsertOptions(Sampling("ddim", 1, 2.0), BLENDS["paste"])
    session = Session(small_base(), options)
    base = session.base

    def learn(insertset: Any, learning: Mapping[str, Any], file: Path) -> None:
        names, state = trained_names(base, learning["freeze_model"]), base_state(base)
        tuned = {name: state[name] + 0.5 for name in names}
        about = ObjectMetadata(
            session.fingerprint, "small", freeze_model=learning["freeze_model"], few_shot_count=2
        )
        width, generator = base.architecture.clip_width, torch.Generator().manual_seed(0)
        delta = extract(state, tuned, names, about, tokens=torch.randn(2, width, generator=generator))
        save(replace(delta, reference=to_bytes(session.images.reference(insertset.reference))[0]), file)

    return Setup(
        folder=Path("nowhere"),
        base=base,
        fingerprint=session.fingerprint,
        context=CropContext(model_side=base.architecture.image_size),
        networks=load_networks(OFFLINE),
        metrics=OFFLINE,
        learn=learn,
        training={"lr": 1},
        insert_settings=dict,
        open_session=lambda changes: (session, base),
    )


def made(setup: Setup, benchmark: Benchmark, *names: str) -> list[tuple[str, str]]:
    """Method and site of every new result, with the folder read again."""
    runs = runs_of(replace(setup), [METHODS[name] for name in names], [benchmark])
    return [(row["method"], row["name"]) for run in runs for row in run.make()]


def test_every_method_fills_the_mask_and_leaves_base_and_background_alone(
    benchmark: Benchmark, shared: Setup, tmp_path: Path
) -> None:
    setup, before = replace(shared, folder=tmp_path), base_fingerprint(shared.base)
    alone = replace(benchmark, objects={"apple": benchmark.objects["apple"]}, sites=benchmark.sites[:1])
    assert len(made(setup, alone, *METHODS)) == len(METHODS)
    assert base_fingerprint(setup.base) == before and setup.base.conditioner.few_shot() is None
    images = alone.sites[0].read()
    pictures = {name: read_picture(tmp_path / name / "mini" / "s1.png").pixels for name in METHODS}
    for method, pixels in pictures.items():
        assert np.array_equal(pixels[~images.mask], images.background.pixels[~images.mask]), method
        least = 0.4 if method == "posed-cut-out" else 0.5  # the object alone
        assert (pixels[images.mask] != images.background.pixels[images.mask]).mean() > least, method
    for a, b in [("zero-shot", "crossattn-kv"), ("crossattn-kv", "crossattn"), ("zero-shot", "flat")]:
        assert not np.array_equal(pictures[a], pictures[b]), (a, b)
    assert images.truth is not None and images.object_mask is not None
    own = images.object_mask
    lit = pictures["posed-cut-out"].astype(int)
    assert (
        np.abs(lit[own] - images.truth.pixels[own].astype(int) // 2).max() <= 1
    )  # in its place, in its light
    assert np.array_equal(lit[~own], images.background.pixels[~own])
    reference = Image.open(alone.objects["apple"].reference)
    size = MASK[2] - MASK[0], MASK[3] - MASK[1]
    stretched = np.asarray(reference.resize(size, Image.Resampling.BICUBIC), float)
    flat = pictures["flat"][MASK[1] : MASK[3], MASK[0] : MASK[2]].astype(float)
    assert np.abs(flat - stretched).mean() < 1.5


def test_a_run_goes_on_where_it_stopped(benchmark: Benchmark, shared: Setup, tmp_path: Path) -> None:
    lessons = []

    def learn(insertset: Any, learning: Mapping[str, Any], file: Path) -> None:
        lessons.append((insertset.root.name, learning["freeze_model"]))
        shared.learn(insertset, learning, file)

    setup = replace(shared, folder=tmp_path, learn=learn)
    both = ("flat", "crossattn")
    expected = [(m, s) for sites in (("s1", "s10"), ("s2",)) for m in both for s in sites]
    assert made(setup, benchmark, *both) == expected
    assert lessons == [("apple", "crossattn"), ("brick", "crossattn")]
    row = Results(tmp_path).rows[2]
    assert (row["method"], row["object"], row["name"]) == ("crossattn", "apple", "s1")
    assert row["scores"]["v2/outside"] == 0 and row["scores"]["v2/learning_seconds"] > 0
    file = tmp_path / "crossattn" / "mini" / "s1.png"
    assert read_picture(file).size == (80, 96)
    assert json.loads(embedded_text(file)["row"])["recipe"] == row["recipe"]

    assert made(setup, benchmark, *both) == [] and len(lessons) == 2
    (tmp_path / "flat" / "mini" / "s2.png").unlink()
    assert made(setup, benchmark, *both) == [("flat", "s2")]
    assert len(made(replace(setup, seed=1), benchmark, *both)) == 3  # flat draws no noise
    made(replace(setup, training={"lr": 2}), benchmark, "crossattn")
    assert len(lessons) == 4  # other settings: another object
    assert len(Results(tmp_path).rows) == 6


def test_an_object_without_its_note_is_learnt_again(
    benchmark: Benchmark, shared: Setup, tmp_path: Path
) -> None:
    """A run that is killed after the object file is written leaves no note."""
    setup = replace(shared, folder=tmp_path)
    run = runs_of(setup, [METHODS["crossattn"]], [benchmark])[0]
    run.object_file.parent.mkdir(parents=True)
    setup.learn(run.insertset, run.method.learning, run.object_file)
    assert len(made(setup, benchmark, "crossattn")) == 3
    assert made(setup, benchmark, "crossattn") == []


def test_pictures_that_changed_are_done_again(shared: Setup, tmp_path: Path) -> None:
    bench = load_benchmark(write_bench(tmp_path / "mini"))
    lessons: list[str] = []

    def learn(insertset: Any, learning: Mapping[str, Any], file: Path) -> None:
        lessons.append(insertset.root.name)
        shared.learn(insertset, learning, file)

    setup, both = replace(shared, folder=tmp_path / "out", learn=learn), ("flat", "crossattn")
    assert len(made(setup, bench, *both)) == 6 and made(setup, bench, *both) == []
    background = next(site for site in bench.sites if site.name == "s2").masked.background
    pixels = np.asarray(Image.open(background)).copy()
    pixels[0, 0] = 255 - pixels[0, 0]
    Image.fromarray(pixels).save(background)
    assert made(setup, bench, *both) == [("flat", "s2"), ("crossattn", "s2")]
    assert lessons == ["apple", "brick"]
    picture = bench.objects["apple"].few_shot[0].image
    Image.fromarray(255 - np.asarray(Image.open(picture))).save(picture)
    assert len(made(setup, load_benchmark(tmp_path / "mini"), *both)) == 4
    assert lessons == ["apple", "brick", "apple"]


def test_a_picture_of_the_user_is_not_replaced(benchmark: Benchmark, shared: Setup, tmp_path: Path) -> None:
    setup, own = replace(shared, folder=tmp_path), tmp_path / "flat" / "mini" / "s2.png"
    made(setup, benchmark, "flat")
    made(setup, benchmark, "flat")  # results of before are no obstacle
    Image.new("RGB", (9, 9)).save(own)
    before = own.read_bytes()
    with pytest.raises(ValueError, match=r"s2.png was not written by this program.*another --out"):
        made(setup, benchmark, "flat", "cut-out")
    assert own.read_bytes() == before and not (tmp_path / "cut-out").exists()


def test_a_broken_last_line_is_made_again_and_any_other_is_named(
    benchmark: Benchmark, shared: Setup, tmp_path: Path
) -> None:
    setup, log = replace(shared, folder=tmp_path), tmp_path / "results.jsonl"
    made(setup, benchmark, "flat")
    whole = log.read_bytes()
    log.write_bytes(whole[:-30])
    assert made(setup, benchmark, "flat") == [("flat", "s2")]
    assert len(log.read_text().splitlines()) == 3
    log.write_bytes(b"{broken\n" + whole)
    with pytest.raises(ValueError, match="line 1 is no result of this program"):
        Results(tmp_path)


def test_rows_are_found_where_the_folder_is_moved_to(
    benchmark: Benchmark, shared: Setup, tmp_path: Path
) -> None:
    made(replace(shared, folder=tmp_path / "before"), benchmark, "flat")
    (tmp_path / "before").rename(tmp_path / "after")
    results = Results(tmp_path / "after")
    found = [results.insertion(row) for row in results.rows]
    assert all(isinstance(insertion.read()[0], Picture) for insertion in found)
    assert [x.site.rois for x in found] == [site.rois for site in benchmark.sites]
