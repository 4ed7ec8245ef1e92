"""Benches of every layout become sites; faults are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.evaluation.sites import load_ground
from tests.fixtures.bench import write_bench
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
    ground = load_ground(write_bench(tmp_path / "bench"))
    assert [(site.name, site.object) for site in ground.of("apple")] == [("s1", "apple"), ("s10", "apple")]
    assert all(site.truth and site.truth.is_file() and site.rois for site in ground.sites)
    few = load_ground(tmp_path / "bench", limit=1, objects=1)
    assert list(few.objects) == ["apple"] and [site.name for site in few.sites] == ["s1"]


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
    ground = load_ground(tmp_path)
    assert [(site.name, site.object, site.truth) for site in ground.sites] == [("0001", "cat", None)]
    assert ground.sites[0].case.background == tmp_path / "insertions/0001_img.jpg"
    (tmp_path / "insertions/cases.json").write_text('[{"id": 3}]')
    with pytest.raises(ValueError, match=r"cases\.json: not a list of cases"):
        load_ground(tmp_path)


def test_insertset_objects_go_into_every_background(tmp_path: Path) -> None:
    bench = backgrounds(tmp_path / "bench", 3)
    for name in ("cup", "dog"):
        object_folder(tmp_path / "objects" / name)
    ground = load_ground(tmp_path / "objects", bench)
    assert [(site.object, site.name) for site in ground.sites] == [
        (name, f"000{i}") for name in ("cup", "dog") for i in (1, 2, 3)
    ]
    alone = load_ground(tmp_path / "objects/cup", bench, limit=2)
    assert [(site.object, site.name) for site in alone.sites] == [("cup", "0001"), ("cup", "0002")]
    assert ground.sites[0].case.read()[1].mask.sum() == 24 * 24


def test_an_object_may_have_a_bench_of_its_own(tmp_path: Path) -> None:
    for count, name in ((2, "cup"), (3, "dog")):
        object_folder(tmp_path / "objects" / name)
        backgrounds(tmp_path / "test_bench" / name, count)
    (tmp_path / "test_bench/dog/id_list.txt").write_text("3 dog\n1 dog\n")
    ground = load_ground(tmp_path / "objects", tmp_path / "test_bench")
    expected = [("cup", "0001"), ("cup", "0002"), ("dog", "0003"), ("dog", "0001")]
    assert [(site.object, site.name) for site in ground.sites] == expected
    assert ground.of("dog")[0].case.background == tmp_path / "test_bench/dog/image/0003_img.png"
    object_folder(tmp_path / "objects/owl")
    with pytest.raises(FileNotFoundError, match=r"image: no such folder, nor .*owl"):
        load_ground(tmp_path / "objects", tmp_path / "test_bench")


def test_what_is_no_bench_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    object_folder(tmp_path / "cup")
    for root, other, message in (
        (tmp_path / "nowhere", None, "no such folder"),
        (tmp_path / "empty", None, "neither a bench"),
        (tmp_path / "cup", None, "--backgrounds"),
        (tmp_path / "cup", tmp_path / "empty", "image: no such folder"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load_ground(root, other)
