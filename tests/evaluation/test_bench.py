"""A bench is read and checked as a whole; methods fill its scenes; what was done is not done again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.image import to_bytes
from ldm.data.picture import read_picture
from ldm.evaluation.bench import load_bench, score
from ldm.evaluation.compare import compare
from ldm.evaluation.methods import METHODS, Setup, prepared
from ldm.evaluation.report import write_report
from ldm.evaluation.results import Results
from ldm.features.imagenet import ImageNetFeatures
from ldm.insertion.blend import BLENDS
from ldm.insertion.inpaint import Sampling
from ldm.insertion.insert import InsertOptions
from ldm.insertion.session import Session
from ldm.merge.merge import member, merge
from ldm.merge.merged_file import load_merged, open_merged, save_merged
from ldm.models.base import base_fingerprint, base_state
from ldm.objects.delta import extract, is_trained, load, save, trained_names
from ldm.objects.object_file import ObjectMetadata
from tests.fixtures.bench import MASK, OBJECT, write_bench
from tests.fixtures.objects import learnt
from tests.fixtures.tiny import loaded_base


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bench(tmp_path_factory.mktemp("bench") / "mini")


@pytest.fixture(scope="module")
def setup() -> Setup:
    options = InsertOptions(Sampling("ddim", 1, 2.0), BLENDS["paste"])
    return Setup(Session(loaded_base(), options, openers={"merged": open_merged}))


def test_a_bench_is_read(root: Path) -> None:
    bench = load_bench(root)
    assert [scene.name for scene in bench.scenes] == ["s1", "s2", "s10"]
    assert [scene.name for scene in bench.scenes_of("apple")] == ["s1", "s10"]
    assert list(bench.objects) == ["apple", "brick"] and len(bench.objects["brick"].few_shot) == 2
    views = bench.scenes[0].read()
    assert views.mask.sum() == (MASK[2] - MASK[0]) * (MASK[3] - MASK[1])
    assert views.object_mask[OBJECT[1], OBJECT[0]] and not views.object_mask[OBJECT[3], OBJECT[0]]


def test_what_is_chosen_is_all_that_is_read(tmp_path: Path) -> None:
    root = write_bench(tmp_path)
    (root / "scenes" / "s1" / "roi.txt").unlink()
    assert [s.name for s in load_bench(root, scenes=["s2", "s10"]).scenes] == ["s2", "s10"]
    assert list(load_bench(root, objects=["brick"]).objects) == ["brick"]


def broken(scene: Path, how: str) -> None:
    small = Image.fromarray(np.zeros((10, 10, 3), np.uint8))
    if how == "roi":
        (scene / "roi.txt").write_text("16 8 80 71")
    elif how == "narrow":
        (scene / "roi.txt").write_text("40 20 70 50")
    elif how == "object":
        (scene / "meta.json").write_text(json.dumps({"object": "pear"}))
    elif how == "meta":
        (scene / "meta.json").write_text("{")
    elif how == "truth":
        small.save(scene / "truth.png")
    elif how == "mask":
        small.save(scene / "mask.png")
    elif how == "empty":
        Image.fromarray(np.zeros((80, 96), np.uint8)).save(scene / "object_mask.png")
    else:
        (scene / "background.png").unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("roi", r"s2.roi\.txt.*square"),
        ("narrow", r"s2.roi\.txt: leaves a part of mask\.png"),
        ("object", r"'pear' is no folder.*apple, brick"),
        ("meta", r"s2.meta\.json: names no object"),
        ("truth", r"s2.truth\.png: 10 x 10 px.*make them alike"),
        ("mask", r"s2.mask\.png.*same size"),
        ("empty", r"s2.object_mask\.png: empty"),
        ("background", r"s2.background\.png: no such"),
    ],
)
def test_a_faulty_scene_is_named_beside_all_others(tmp_path: Path, how: str, message: str) -> None:
    root = write_bench(tmp_path)
    broken(root / "scenes" / "s2", how)
    (root / "scenes" / "s1" / "roi.txt").write_text("one")
    with pytest.raises(ValueError, match=message) as error:
        load_bench(root)
    assert "s1/roi.txt: expected four numbers" in str(error.value) and "2 places" in str(error.value)


def test_a_wrong_choice_says_what_there_is(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no s3; there are s1, s2, s10"):
        load_bench(root, scenes=["s3"])
    with pytest.raises(ValueError, match="no scene has one of these objects: brick"):
        load_bench(root, ["brick"], ["s1"])
    with pytest.raises(FileNotFoundError, match="scenes"):
        load_bench(tmp_path)


def test_the_truth_scores_best_and_the_background_is_not_the_object(root: Path) -> None:
    scene = load_bench(root).scenes[0]
    views, features = scene.read(), ImageNetFeatures()
    best, nothing = (score(features, picture, scene, views) for picture in (views.truth, views.background))
    assert (
        best["identity"] == pytest.approx(1, abs=1e-4) and best["psnr_object"] == best["psnr_region"] == 100
    )
    assert best["ssim_object"] == best["ssim_region"] == pytest.approx(1)
    assert best["outside"] == nothing["outside"] == 0
    assert nothing["identity"] < 0.9 and nothing["psnr_object"] < nothing["psnr_region"] < 30


def own_object(setup: Setup, file: Path) -> None:
    """An object that changes the base a lot."""
    names, state = trained_names(setup.session.base, "crossattn"), base_state(setup.session.base)
    tuned = {name: state[name] + 0.5 for name in names}
    about = ObjectMetadata(setup.fingerprint, "tiny", freeze_model="crossattn", few_shot_count=2)
    tokens = torch.randn(
        2, setup.session.base.architecture.clip_width, generator=torch.Generator().manual_seed(0)
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    save(extract(state, tuned, names, about, tokens=tokens), file)


def test_every_method_fills_the_mask_and_leaves_base_and_background_alone(
    root: Path, setup: Setup, tmp_path: Path
) -> None:
    scene, insertset = load_bench(root).scenes[0], load_bench(root).objects["apple"]
    views, before = scene.read(), base_fingerprint(setup.session.base)
    own_object(setup, tmp_path / "object.safetensors")
    pictures = {}
    delta = load(tmp_path / "object.safetensors")
    kv = {
        k: v for k, v in delta.weights.items() if not k.startswith("unet.") or is_trained(k, "crossattn-kv")
    }
    reference = torch.zeros(3, 56, 56, dtype=torch.uint8)
    alone = member(
        setup.session.base, replace(delta, weights=kv, reference=reference), "apple", setup.session.images
    )
    save_merged(merge([alone])[0], tmp_path / "merged.safetensors")
    for method in METHODS:
        file = tmp_path / ("merged.safetensors" if method == "merged" else "object.safetensors")
        with prepared(method, setup, insertset, file) as fill:
            pictures[method] = fill(scene, views).pixels
    assert (
        base_fingerprint(setup.session.base) == before and setup.session.base.conditioner.few_shot() is None
    )
    for method, pixels in pictures.items():
        assert np.array_equal(pixels[~views.mask], views.background.pixels[~views.mask]), method
        assert (pixels[views.mask] != views.background.pixels[views.mask]).mean() > 0.5, method
    for a, b in [("zero-shot", "zero-shot-tokens"), ("zero-shot-tokens", "crossattn"), ("zero-shot", "flat")]:
        assert not np.array_equal(pictures[a], pictures[b]), (a, b)
    assert np.array_equal(pictures["crossattn"], pictures["crossattn-kv"])  # the same object file


def test_flat_is_the_reference_stretched_over_the_mask(root: Path, setup: Setup) -> None:
    bench = load_bench(root)
    scene = bench.scenes[0]
    views = scene.read()
    with prepared("flat", setup, bench.objects["apple"], None) as fill:
        pasted = fill(scene, views).pixels[MASK[1] : MASK[3], MASK[0] : MASK[2]].astype(float)
    reference = Image.open(root / "objects" / "apple" / "test.jpg")
    size = MASK[2] - MASK[0], MASK[3] - MASK[1]
    assert np.abs(pasted - np.asarray(reference.resize(size, Image.Resampling.BICUBIC), float)).mean() < 1.5


def test_a_comparison_goes_on_where_it_stopped(root: Path, setup: Setup, tmp_path: Path) -> None:
    bench, told, lessons = load_bench(root), [], []

    def learn(insertset: Any, mode: str, file: Path) -> None:
        lessons.append((insertset.root.name, mode))
        own_object(setup, file)

    def again(methods: list[str], settings: dict[str, Any], seed: int = 321) -> list[tuple[str, str]]:
        told.clear()
        results = Results(tmp_path)  # read anew
        compare(bench, methods, replace(setup, seed=seed), results, learn, settings, told.append)
        return [(row["method"], row["scene"]) for row in told]

    made = again(["flat", "crossattn"], {"lr": 1})
    assert made == [(m, s) for m in ("flat", "crossattn") for s in ("s1", "s10", "s2")]
    assert lessons == [("apple", "crossattn"), ("brick", "crossattn")]
    row = Results(tmp_path).rows[3]
    assert row["object"] == "apple" and row["outside"] == 0 and row["learning_seconds"] > 0
    assert read_picture(tmp_path / "crossattn" / "s1.png").size == (80, 96)

    assert again(["flat", "crossattn"], {"lr": 1}) == [] and len(lessons) == 2
    (tmp_path / "flat" / "s2.png").unlink()
    assert again(["flat", "crossattn"], {"lr": 1}) == [("flat", "s2")]
    again(["crossattn"], {"lr": 2})
    assert len(lessons) == 4  # other settings: another object
    for note in (tmp_path / "objects").glob("*.json"):
        note.unlink()
    assert len(again(["flat", "crossattn"], {"lr": 2}, seed=1)) == 3  # flat knows no seed
    again(["crossattn"], {"lr": 2})
    assert again(["crossattn"], {"lr": 3}) == [] and len(lessons) == 4  # given files are taken as they are
    assert len(Results(tmp_path).rows) == 6


def test_merged_is_each_object_out_of_one_file(root: Path, setup: Setup, tmp_path: Path) -> None:
    """Learnt once for both rows, merged once; a merge of objects that agree changes no picture by much."""
    bench, results, lessons = load_bench(root), Results(tmp_path), []

    def learn(insertset: Any, mode: str, file: Path) -> None:
        lessons.append((insertset.root.name, mode))
        picture = setup.session.images.reference(insertset.reference)
        made = learnt(setup.session.base, len(lessons), mode, 2)
        save(replace(made, reference=to_bytes(picture)[0]), file)

    compare(bench, ["crossattn-kv", "merged"], setup, results, learn)
    assert lessons == [("apple", "crossattn-kv"), ("brick", "crossattn-kv")]
    merged = load_merged(tmp_path / "objects" / "merged.safetensors")
    assert merged.names == ["apple", "brick"] and len({p["sha256"] for p in merged.metadata.parents}) == 2
    identity = {(row["method"], row["scene"]): row["identity"] for row in results.rows}
    for scene in ("s1", "s2", "s10"):
        assert identity["merged", scene] == pytest.approx(identity["crossattn-kv", scene], abs=0.02)
    written = write_report(results, bench, ["crossattn-kv", "merged"])[0].read_text("utf-8")
    [line] = [line for line in written.splitlines() if "less that of `crossattn-kv`" in line]
    assert "scene by scene (3)" in line
    before = (tmp_path / "objects" / "merged.safetensors").stat().st_mtime_ns
    compare(bench, ["merged"], setup, results, learn)
    assert (tmp_path / "objects" / "merged.safetensors").stat().st_mtime_ns == before
    learn(bench.objects["apple"], "crossattn-kv", tmp_path / "objects" / "apple_crossattn-kv.safetensors")
    told: list[Any] = []
    compare(bench, ["merged"], setup, results, learn, on_row=told.append)
    assert len(told) == 3, "another object: merged anew"


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"method": "flat", "scene": "s1"}\n{"method"')
    with pytest.raises(ValueError, match="line 2 is no result"):
        Results(tmp_path)
