"""What placements made stays while it is used; the longest unused goes first."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from ldm.scenes.runner import PlacementCache

RECORD = {"key": "k", "seed": 3}


def filled(folder: Path, names: str) -> PlacementCache:
    kept = PlacementCache(folder)
    for age, name in enumerate(names):
        kept.add(name, np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8), RECORD)
        os.utime(folder / f"{name}.png", (1000 + age, 1000 + age))
    return kept


def left(folder: Path) -> str:
    return "".join(sorted(file.stem for file in folder.glob("*.png")))


def test_what_was_added_comes_back(tmp_path: Path) -> None:
    kept = filled(tmp_path / "new", "a")
    assert kept.record("a") == RECORD and kept.record("b") == {}
    assert (kept.pixels("a") == np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)).all()


def test_a_placement_that_is_cut_off_is_made_again(tmp_path: Path) -> None:
    kept = filled(tmp_path, "a")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-1])
    assert kept.record("a") == {}


def test_the_longest_unused_goes_first_and_what_this_run_used_stays(tmp_path: Path) -> None:
    filled(tmp_path, "abcd")
    size, kept = (tmp_path / "a.png").stat().st_size, PlacementCache(tmp_path)
    kept.pixels("a")
    assert kept.prune(3 * size) == [tmp_path / "b.png"] and left(tmp_path) == "acd"
    Image.new("L", (9, 9)).save(tmp_path / "z.png")  # of someone else
    kept.prune(0)
    assert left(tmp_path) == "az"
    (tmp_path / "z.png").unlink()
    assert PlacementCache(tmp_path).prune(size) == [] and len(PlacementCache(tmp_path).prune(0)) == 1
    assert PlacementCache(tmp_path / "none").prune(0) == []


def test_using_makes_young_again(tmp_path: Path) -> None:
    filled(tmp_path, "ab").pixels("a")
    size = (tmp_path / "a.png").stat().st_size
    PlacementCache(tmp_path).prune(size)
    assert left(tmp_path) == "a"


def test_half_written_files_of_the_dead_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".0123abcd.999999999.part").write_bytes(b"")
    PlacementCache(tmp_path)
    assert not list(tmp_path.iterdir())
