"""A scene is its placements, one over the other; an unchanged scene is not made again."""

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
from ldm.scenes.runner import run_placements, run_scene
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
    "changed",
    [
        {"seed": 9},
        {"object_scale": 0.5},
        {"box": [34, 10, 44, 31]},
        {"order": 2},
        {"box": None, "polygon": [[34, 10], [44, 10], [44, 30]]},
    ],
)
def test_a_scene_is_made_again_only_if_something_changed(tmp_path: Path, changed: dict[str, Any]) -> None:
    out = tmp_path / "out"
    stage(write(tmp_path), out)
    _, outcome, made = stage(write(tmp_path), out)
    assert made == [] and outcome.made == ()
    after, outcome, made = stage(write(tmp_path, p2=changed), out)
    assert sorted(made) == ["1", "2", "3", "4"] and outcome.made == (0,)
    fresh, _, _ = stage(write(tmp_path, p2=changed), tmp_path / "fresh")
    assert np.array_equal(after.pixels, fresh.pixels)


def test_a_changed_file_makes_the_scene_again(tmp_path: Path) -> None:
    file, out = write(tmp_path), tmp_path / "out"
    stage(file, out)
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "r.png")
    assert len(stage(file, out)[2]) == 4


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
    """Made in one pass, made again if any of them changes; replayed with all of them."""
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
        assert stage(with_pair([pair[0], pair[1] | changed]), tmp_path / "out")[2] == ["1", "2"]
    stage(with_pair(pair), tmp_path / "out")
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


def test_another_base_or_a_file_that_is_cut_off_is_made_again(tmp_path: Path) -> None:
    file, out = write(tmp_path), tmp_path / "out"
    stage(file, out)
    stub = Stub()
    stub.fingerprint = "f" * 16
    assert stage(file, out, stub)[2] == ["1", "2", "3", "4"]
    picture = out / "scene.png"
    picture.write_bytes(picture.read_bytes()[:-1])
    assert stage(file, out, stub)[2] == ["1", "2", "3", "4"]


def test_a_group_is_one_batch(tmp_path: Path) -> None:
    """Whatever the objects; and never more at once than there is room for."""
    file, stub = write(tmp_path, p2={"reference": "other.png"}), Stub()
    Image.new("RGB", (9, 9)).save(tmp_path / "other.png")
    stage(file, tmp_path / "out", stub)
    names = [[source.reference.name for source in batch if source.reference] for batch in stub.batches]
    assert names == [["r.png", "other.png"], ["r.png", "r.png"]]
    write(tmp_path, p4={"order": 0})
    how = replace(options(), batch_size=2)
    run_placements(lay_out(read_scene(file), how), few := Stub(), how)
    assert [len(batch) for batch in few.batches] == [2, 1, 1]


def test_a_scene_is_made_again_as_it_was(tmp_path: Path) -> None:
    """In the batches of then, without the scene file."""
    file, out = write(tmp_path), tmp_path / "out"
    after, _, _ = stage(file, out)
    file.unlink()
    again = read_replay(out / "scene.png")
    assert len(again.sources) == 4
    repeated = again.repeat(stub := Stub(), options())
    assert difference(repeated, after) == ""
    assert stub.made == [(1,), (2,), (3,), (4,)] and len(stub.batches) == 2
    Image.new("RGB", (9, 9)).save(tmp_path / "r.png")
    with pytest.raises(ValueError, match=r"r\.png: this reference has changed since"):
        read_replay(out / "scene.png")
