"""A recipe says all that is needed to make a result again, and what must not have changed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ldm import __version__
from ldm.batch.results_log import CUT_OUT_NETWORK, ResultsLog
from ldm.batch.runner import RunOptions, make_item
from ldm.batch.work_item import WorkItem
from ldm.data.picture import Picture, read_picture
from ldm.scenes.replay import Replay, difference, read_recipe, replay_warnings
from tests.fixtures.stub import Stub, items, options

FACTS = {"settings": {}, "machine": {}}


def read_replay(file: Path) -> Replay:
    return Replay.of(file, read_recipe(file))


def made(item: WorkItem, folder: Path, how: RunOptions | None = None) -> list[Path]:
    outcome = make_item(item, Stub(), how or replace(options(), facts=FACTS), ResultsLog(folder))
    return [folder / name for name in outcome.files.values()]


def test_the_item_comes_back_with_its_whole_batch(tmp_path: Path) -> None:
    [item] = items(tmp_path, 1, seeds=(5, 6))
    item = replace(item, name="x", source=replace(item.source, object_scale=0.5), roi=(4, 4, 24, 24))
    file = made(item, tmp_path / "out")[1]
    again = read_replay(file)
    assert again.made == item and again.recipe["seed"] == 6
    stub = Stub()
    assert difference(again.repeat(stub, options()), read_picture(file)) == ""
    assert stub.made == [(5, 6)], "alone, sums of floats may round otherwise"


def test_the_best_of_several_is_found_again(tmp_path: Path) -> None:
    [item] = items(tmp_path, 1, seeds=(5, 6, 7))
    how = replace(options(), facts=FACTS, choose=lambda item, request, results: results[::-1])
    [file] = made(replace(item, best=True), tmp_path / "out", how)
    again = read_replay(file)
    assert again.recipe["seed"] == 7
    assert difference(again.repeat(Stub(), options()), read_picture(file)) == ""


def test_relative_paths_lead_from_here_or_from_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    item = replace(items(Path("in"), 1)[0], name="x")
    [file] = made(item, tmp_path / "out")
    assert Replay.of(file, read_recipe(file, tmp_path / "project")).made == item
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    again = Replay.of(file, read_recipe(file, tmp_path))
    assert again.made.sources() == {role: tmp_path / path for role, path in item.sources().items()}
    with pytest.raises(FileNotFoundError, match="no such background"):
        Replay.of(file, read_recipe(file))


@pytest.mark.parametrize("role", ["background", "mask", "reference"])
def test_changed_and_missing_files_are_named(tmp_path: Path, role: str) -> None:
    [item] = items(tmp_path, 1)
    [file] = made(item, tmp_path / "out")
    source = item.sources()[role]
    source.write_bytes(source.read_bytes() + b"x")
    with pytest.raises(ValueError, match=f"{source.name}: this {role} has changed since"):
        read_replay(file)
    source.unlink()
    with pytest.raises(FileNotFoundError, match=f"{source.name}: no such {role}"):
        read_replay(file)


def test_another_base_and_files_without_a_recipe_are_refused(tmp_path: Path) -> None:
    [item] = items(tmp_path, 1)
    stub = Stub()
    stub.fingerprint = "f" * 16
    with pytest.raises(ValueError, match=f"the base {Stub.fingerprint}, this one is {stub.fingerprint}"):
        read_replay(made(item, tmp_path / "out")[0]).repeat(stub, options())
    with pytest.raises(ValueError, match="has no recipe"):
        read_replay(item.masked.background)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_replay(tmp_path / "gone.png")


def test_differences_are_counted() -> None:
    one = Picture(np.zeros((4, 5, 3), np.uint8))
    pixels = one.pixels.copy()
    pixels[1, 2], pixels[0, 0, 1] = 9, 200
    assert difference(one, Picture(pixels)) == "2 pixels differ, by at most 200 levels"
    assert difference(one, one) == "" and "instead of" in difference(one, Picture(pixels.astype(np.uint16)))


def test_another_version_machine_and_cut_out_network_are_named() -> None:
    here = {"device": "cpu", "threads": 2}
    facts = {"machine": here, CUT_OUT_NETWORK: "ab"}
    assert not list(replay_warnings({"version": __version__, "machine": here}, facts))
    made = {"version": "0.0.1", "machine": here | {"threads": 8}, CUT_OUT_NETWORK: "cd"}
    version, machine, network = replay_warnings(made, facts)
    assert "0.0.1" in version and __version__ in version
    assert "'threads': 8" in machine and "another matting.safetensors" in network
