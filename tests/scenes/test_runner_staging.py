"""A scene is its placements, one over the other; only what changed, and what sees it, is made again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ldm.batch.results_log import FILE, ItemResult, ResultsLog, rows
from ldm.data.picture import Picture, read_picture
from ldm.scenes.layout import lay_out
from ldm.scenes.replay import Replay, difference, read_recipe
from ldm.scenes.runner import PlacementCache, run_placements, run_scene
from ldm.scenes.scene_file import read_scene
from tests.fixtures.profiles import PROFILES
from tests.fixtures.stub import Stub, options

SIZE = (60, 90)
FACTS = {
    "settings": {"sample": {"seed": 321, "object_scale": 1.0}},
    "machine": {},
}
# 1 and 2 lie side by side, 3 over 1, 4 far away but later: it sees none of them
BOXES = {1: [10, 10, 30, 30], 2: [34, 10, 44, 30], 3: [20, 20, 40, 40], 4: [70, 40, 80, 50]}
ORDERS = {1: 0, 2: 0, 3: 1, 4: 1}


def write(folder: Path, channels: int = 3, dtype: type = np.uint8, **changed: dict[str, Any]) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(folder / "b.png")
    Image.new("RGB", (8, 8)).save(folder / "r.png")
    entries = [
        {"reference": "r.png", "box": BOXES[i], "order": ORDERS[i], "seed": i} | changed.get(f"p{i}", {})
        for i in BOXES
    ]
    file = folder / "scene.yaml"
    file.write_text(yaml.safe_dump({"background": "b.png", "placements": entries}))
    return file


def stage(file: Path, out: Path, stub: Stub | None = None) -> tuple[Picture, ItemResult, list[str]]:
    """The finished image, its result, and the names of the placements that were made."""
    how, lines = replace(options(), facts=FACTS), []
    outcome = run_scene(lay_out(read_scene(file), how), stub or Stub(), how, ResultsLog(out), lines.append)
    made = [line.removeprefix("scene_").removesuffix(": made") for line in lines if line.endswith(": made")]
    return read_picture(out / "scene.png"), outcome, made


def test_another_profile_of_the_background_makes_all_again(tmp_path: Path) -> None:
    """The same numbers are other colours, which the model is shown, and gives back, converted."""
    file = write(tmp_path)
    stage(file, tmp_path / "out")
    Image.open(tmp_path / "b.png").save(tmp_path / "b.png", icc_profile=PROFILES["p3"])
    after, _, made = stage(file, tmp_path / "out")
    assert made == ["1", "2", "3", "4"] and after.icc_profile == PROFILES["p3"]


def read_replay(file: Path) -> Replay:
    return Replay.of(file, read_recipe(file))


def test_every_pixel_is_that_of_the_topmost_placement(tmp_path: Path) -> None:
    after, outcome, made = stage(write(tmp_path), tmp_path / "out")
    assert made == ["1", "2", "3", "4"] and outcome.made == (0,)
    expected, owner = read_picture(tmp_path / "b.png").pixels.copy(), np.zeros(SIZE, int)
    for i, (x0, y0, x1, y1) in BOXES.items():
        noise = np.random.default_rng(i).integers(0, 256, ((x1 - x0) * (y1 - y0), 3))
        expected[y0:y1, x0:x1] = noise.reshape(y1 - y0, x1 - x0, 3)
        owner[y0:y1, x0:x1] = i
    assert np.array_equal(after.pixels, expected) and (owner == 0).any()
    assert np.array_equal(read_picture(tmp_path / "out" / "scene.png").pixels, expected)
    [row] = rows(tmp_path / "out" / FILE)
    assert row["outside"] == 0 and len(row["placements"]) == 4 and len(row["regions"]) == 4


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"p1": {"seed": 9}}, ["1", "3"]),  # 3 lies on it; 2 is made beside it, from the untouched background
        ({"p2": {"seed": 9}}, ["2", "3"]),
        ({"p2": {"object_scale": 0.5}}, ["2"]),  # of the stub it changes no pixel: those who see it stay
        ({"p3": {"seed": 9}}, ["3"]),
        ({"p4": {"box": [71, 40, 80, 50]}}, ["4"]),
        ({"p2": {"order": 2}}, ["3", "2"]),  # on top now: seen no more, and sees
        ({"p4": {"order": 7}}, []),  # the order alone changes no pixel that it sees
    ],
)
def test_only_what_changed_and_what_sees_it_is_made_again(
    tmp_path: Path, changed: dict[str, Any], expected: list[str]
) -> None:
    out = tmp_path / "out"
    stage(write(tmp_path), out)
    after, outcome, made = stage(write(tmp_path, **changed), out)
    assert made == expected
    fresh, _, _ = stage(write(tmp_path, **changed), tmp_path / "fresh")
    assert np.array_equal(after.pixels, fresh.pixels), "the cache changes no pixel"
    assert bool(outcome.made) == bool(expected)


def test_a_line_that_a_kill_cut_off_is_written_again(tmp_path: Path) -> None:
    file, out = write(tmp_path), tmp_path / "out"
    stage(file, out)
    before = list(rows(out / FILE))
    (out / FILE).unlink()
    assert stage(file, out)[2] == [] and list(rows(out / FILE)) == before


class Narrow(Stub):
    """Has memory for one result at a time."""

    def insert(self, background: Any, requests: Any, objects: Any = None) -> Any:
        if len(requests) > 1:
            raise MemoryError
        return super().insert(background, requests, objects)


def test_a_batch_that_memory_does_not_hold_is_halved_and_replayed_so(tmp_path: Path) -> None:
    file, narrow = write(tmp_path), Narrow()
    whole, _, _ = stage(file, tmp_path / "whole")
    with pytest.warns(
        UserWarning, match="2 placements in one batch do not fit into memory; made 1 at a time"
    ):
        halved, _, made = stage(file, tmp_path / "halved", narrow)
    assert made == ["1", "2", "3", "4"] and narrow.made == [(1,), (2,), (3,), (4,)]
    assert np.array_equal(halved.pixels, whole.pixels)
    found = read_replay(tmp_path / "halved" / "scene.png")  # in the batches of then, none of which is halved
    assert np.array_equal(found.repeat(narrow, options()).pixels, whole.pixels)


def test_objects_together_are_one_placement(tmp_path: Path) -> None:
    """Made in one task, kept as one, made again if any of them changes; replayed with all of them."""
    pair = [
        {"reference": "r.png", "box": BOXES[1]},
        {"reference": "r.png", "box": BOXES[2], "object_scale": 0.5},
    ]
    file, stub = write(tmp_path), Stub()

    def with_pair(pair: list[dict[str, Any]]) -> Path:
        entries = [{"together": pair, "seed": 7}, {"reference": "r.png", "box": BOXES[4]}]
        file.write_text(yaml.safe_dump({"background": "b.png", "placements": entries}))
        return file

    after, _, made = stage(with_pair(pair), tmp_path / "out", stub)
    assert made == ["1", "2"] and stub.made == [(7,), (321,)]
    assert stage(with_pair(pair), tmp_path / "out")[2] == []
    for changed in ({"object_scale": 0.4}, {"box": [34, 10, 44, 31]}):
        assert stage(with_pair([pair[0], pair[1] | changed]), tmp_path / "out")[2] == ["1"]
    assert stage(with_pair(pair), tmp_path / "out")[2] == []
    found = read_replay(tmp_path / "out" / "scene.png")
    assert [source.object_scale for source in found.sources] == [1, 0.5, 1]
    assert np.array_equal(found.repeat(stub, options()).pixels, after.pixels)
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "r.png")
    with pytest.raises(ValueError, match="this reference_1 has changed"):
        read_replay(tmp_path / "out" / "scene.png")


class Seeing(Stub):
    """Fills a mask with the mean of what it sees."""

    def filling(self, background: Picture, mask: np.ndarray, rois: Any, seed: int) -> Any:
        return background.pixels[rois[0].slices].mean()


def test_a_group_does_not_see_itself(tmp_path: Path) -> None:
    """2 next to 1, first or last in the file: the same picture."""
    one, _, _ = stage(write(tmp_path), tmp_path / "one", Seeing())
    values = yaml.safe_load((tmp_path / "scene.yaml").read_text())
    values["placements"].reverse()
    (tmp_path / "scene.yaml").write_text(yaml.safe_dump(values))
    other, _, _ = stage(tmp_path / "scene.yaml", tmp_path / "other", Seeing())
    assert np.array_equal(one.pixels, other.pixels)


def test_another_base_or_a_torn_file_is_made_anew(tmp_path: Path) -> None:
    file, out = write(tmp_path), tmp_path / "out"
    stage(file, out)
    stub = Stub()
    stub.fingerprint = "f" * 16
    assert stage(file, out, stub)[2] == ["1", "2", "3", "4"]
    next(iter((out / "placements").glob("*.png"))).unlink()
    assert len(stage(file, out)[2]) + len(stage(file, out, stub)[2]) == 1


def test_a_group_is_one_batch_of_what_is_missing(tmp_path: Path) -> None:
    """Whatever the objects; and never more at once than there is room for."""
    file, out, stub = write(tmp_path), tmp_path / "out", Stub()
    Image.new("RGB", (9, 9)).save(tmp_path / "other.png")
    write(tmp_path, p2={"reference": "other.png"})
    stage(file, out, stub)
    names = [[source.reference.name for source in batch if source.reference] for batch in stub.batches]
    assert names == [["r.png", "other.png"], ["r.png", "r.png"]]
    write(tmp_path, p1={"seed": 9}, p2={"reference": "other.png"})
    stage(file, out, again := Stub())
    assert again.made == [(9,), (3,)] and len(again.batches) == 2
    write(tmp_path, p1={"seed": 9}, p2={"reference": "other.png"}, p4={"order": 0})
    how = replace(options(), batch_size=2)
    cache = PlacementCache(tmp_path / "fresh")
    run_placements(lay_out(read_scene(file), how), few := Stub(), how, cache)
    assert [len(batch) for batch in few.batches] == [2, 1, 1]


def test_a_scene_is_made_again_as_it_was(tmp_path: Path) -> None:
    """In the batches of then, without the scene file and without what an earlier run kept."""
    file, out = write(tmp_path, p2={"n": 3}), tmp_path / "out"
    chosen = replace(options(), facts=FACTS, choose=lambda item, request, results: results[::-1])
    run_scene(lay_out(read_scene(file), chosen), Stub(), chosen, ResultsLog(out), lambda line: None)
    after = read_picture(out / "scene.png")
    file.unlink()
    again = read_replay(out / "scene.png")
    assert len(again.sources) == 4
    repeated = again.repeat(stub := Stub(), options())
    assert difference(repeated, after) == ""
    assert stub.made == [(1,), (2, 3, 4), (3,), (4,)] and len(stub.batches) == 2
    Image.new("RGB", (9, 9)).save(tmp_path / "r.png")
    with pytest.raises(ValueError, match=r"r\.png: this reference has changed since"):
        read_replay(out / "scene.png")


def test_batches_of_several_runs_are_repeated_and_lost_mates_told(tmp_path: Path) -> None:
    file, out = write(tmp_path), tmp_path / "out"
    stage(file, out)
    write(tmp_path, p2={"seed": 9, "order": 0})
    after, _, made = stage(file, out)
    assert made == ["2", "3"]
    with pytest.warns(UserWarning, match="made in one batch with placements that were removed"):
        repeated = read_replay(out / "scene.png").repeat(stub := Stub(), options())
    assert difference(repeated, after) == "" and sorted(stub.made) == [(1,), (3,), (4,), (9,)]
    assert len(stub.batches) == 4
