"""Benchmarks of every layout are read and checked as a whole; faults are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.evaluation import benchmark
from ldm.evaluation.benchmark import load_benchmark
from tests.fixtures.bench import MASK, OBJECT, write_bench
from tests.fixtures.small import object_folder


def backgrounds(folder: Path, count: int) -> Path:
    """A test bench: grey pictures, a square marked in each."""
    for part in ("image", "mask"):
        (folder / part).mkdir(parents=True)
    mask = np.zeros((48, 64), np.uint8)
    mask[12:36, 20:44] = 255
    for i in range(1, count + 1):
        pixels = np.random.default_rng(i).integers(100, 150, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"image/{i:04}_img.png")
        Image.fromarray(mask).save(folder / f"mask/{i:04}_mask.png")
    return folder


def test_a_bench_with_truth(tmp_path: Path) -> None:
    benchmark = load_benchmark(write_bench(tmp_path / "bench"))
    assert [(site.name, site.object) for site in benchmark.sites_of("apple")] == [
        ("s1", "apple"),
        ("s10", "apple"),
    ]
    assert all(site.truth and site.truth.is_file() and site.rois for site in benchmark.sites)
    few = benchmark.first(objects=1, sites=1)
    assert list(few.objects) == ["apple"] and [site.name for site in few.sites] == ["s1"]


def test_only_what_is_chosen_has_to_be_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_bench(tmp_path / "bench")
    (root / "objects/brick/bbox/1.txt").write_text("nothing")
    (root / "scenes/s10/truth.png").write_bytes(b"")
    read: list[str] = []
    monkeypatch.setattr(benchmark, "load_insertset", lambda folder: read.append(folder.name))
    load_benchmark(root, objects=["apple"], sites=["s1"])
    assert read == ["apple"], "once, for all of its sites"
    monkeypatch.undo()
    chosen = load_benchmark(root, objects=["apple"], sites=["s1"])
    assert list(chosen.objects) == ["apple"] and [site.name for site in chosen.sites] == ["s1"]
    with pytest.raises(ValueError, match=r"objects/brick: 1 fault"):
        load_benchmark(root, objects=["brick"])


def test_photos_with_suggested_objects(tmp_path: Path) -> None:
    (tmp_path / "insertions").mkdir()
    object_folder(tmp_path / "id_image/cat")
    rows = [
        {
            "id": f"000{i}",
            "background": f"000{i}_img.jpg",
            "mask": "m.png",
            "object": name,
            "object_from": source,
        }
        for i, name, source in ((1, "cat", "id_image"), (2, "mug", "insertbench"))
    ]
    (tmp_path / "insertions/cases.json").write_text(json.dumps(rows))
    benchmark = load_benchmark(tmp_path)
    assert [(site.name, site.object, site.truth) for site in benchmark.sites] == [("0001", "cat", None)]
    assert benchmark.sites[0].masked.background == tmp_path / "insertions/0001_img.jpg"
    (tmp_path / "insertions/cases.json").write_text('[{"id": 3}]')
    with pytest.raises(ValueError, match=r"cases\.json: not a list of insertions"):
        load_benchmark(tmp_path)


def test_insertset_objects_go_into_every_background(tmp_path: Path) -> None:
    bench = backgrounds(tmp_path / "bench", 3)
    for name in ("cup", "dog"):
        object_folder(tmp_path / "objects" / name)
    benchmark = load_benchmark(tmp_path / "objects", bench)
    assert [(site.object, site.name) for site in benchmark.sites] == [
        (name, f"{name}/000{i}") for name in ("cup", "dog") for i in (1, 2, 3)
    ]
    alone = load_benchmark(tmp_path / "objects/cup", bench).first(1, 2)
    assert [(site.object, site.name) for site in alone.sites] == [("cup", "cup/0001"), ("cup", "cup/0002")]
    assert benchmark.sites[0].masked.read()[1].sum() == 24 * 24


def test_an_object_may_have_a_bench_of_its_own(tmp_path: Path) -> None:
    for count, name in ((2, "cup"), (3, "dog")):
        object_folder(tmp_path / "objects" / name)
        backgrounds(tmp_path / "test_bench" / name, count)
    (tmp_path / "test_bench/dog/id_list.txt").write_text("3 dog\n1 dog\n")
    benchmark = load_benchmark(tmp_path / "objects", tmp_path / "test_bench")
    expected = [("cup", "cup/0001"), ("cup", "cup/0002"), ("dog", "dog/0003"), ("dog", "dog/0001")]
    assert [(site.object, site.name) for site in benchmark.sites] == expected
    assert benchmark.sites_of("dog")[0].masked.background == tmp_path / "test_bench/dog/image/0003_img.png"
    object_folder(tmp_path / "objects/owl")
    with pytest.raises(FileNotFoundError, match=r"image: no such folder, nor .*owl"):
        load_benchmark(tmp_path / "objects", tmp_path / "test_bench")


def test_what_is_no_bench_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    object_folder(tmp_path / "cup")
    for root, other, message in (
        (tmp_path / "nowhere", None, "no such folder"),
        (tmp_path / "empty", None, "neither a benchmark"),
        (tmp_path / "cup", None, "--backgrounds"),
        (tmp_path / "cup", tmp_path / "empty", "image: no such folder"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load_benchmark(root, other)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bench(tmp_path_factory.mktemp("bench") / "mini")


def test_a_bench_is_read(root: Path) -> None:
    benchmark = load_benchmark(root)
    assert [scene.name for scene in benchmark.sites] == ["s1", "s10", "s2"]
    assert [scene.name for scene in benchmark.sites_of("apple")] == ["s1", "s10"]
    assert list(benchmark.objects) == ["apple", "brick"] and len(benchmark.objects["brick"].few_shot) == 2
    images = benchmark.sites[0].read()
    assert images.mask.sum() == (MASK[2] - MASK[0]) * (MASK[3] - MASK[1])
    assert images.object_mask is not None
    assert images.object_mask[OBJECT[1], OBJECT[0]] and not images.object_mask[OBJECT[3], OBJECT[0]]


def test_what_is_chosen_is_all_that_is_read(tmp_path: Path) -> None:
    root = write_bench(tmp_path)
    (root / "scenes" / "s1" / "roi.txt").unlink()
    assert [s.name for s in load_benchmark(root, sites=["s2", "s10"]).sites] == ["s10", "s2"]
    assert list(load_benchmark(root, objects=["brick"]).objects) == ["brick"]


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
        ("object", r"'pear' is not in objects/; there are apple, brick"),
        ("meta", r"s2.meta\.json: names no object"),
        ("truth", r"s2.truth\.png: 10 x 10 px.*must be the same"),
        ("mask", r"s2.mask\.png.*same size"),
        ("empty", r"s2.object_mask\.png: the mask is empty"),
        ("background", r"s2.background\.png: no such"),
    ],
)
def test_a_faulty_scene_is_named(tmp_path: Path, how: str, message: str) -> None:
    root = write_bench(tmp_path)
    broken(root / "scenes" / "s2", how)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load_benchmark(root)
    assert "\n" not in str(error.value)


def test_a_square_is_four_numbers(tmp_path: Path) -> None:
    root = write_bench(tmp_path)
    (root / "scenes" / "s1" / "roi.txt").write_text("one")
    with pytest.raises(ValueError, match=r"s1/roi\.txt: box 'one'; expected four numbers"):
        load_benchmark(root)


def test_a_wrong_choice_says_what_there_is(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no s3; there are s1, s2, s10"):
        load_benchmark(root, sites=["s3"])
    with pytest.raises(ValueError, match="no site has one of these objects: brick"):
        load_benchmark(root, objects=["brick"], sites=["s1"])
    (tmp_path / "scenes").mkdir()
    with pytest.raises(FileNotFoundError, match="objects: no such folder"):
        load_benchmark(tmp_path)
