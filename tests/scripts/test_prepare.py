"""Preparing photos as a user calls it: what is a person's stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.compositing.cut_out import PixelBox
from ldm.data.picture_write import embedded_text
from ldm.prepare.object_folder import read_object_folder
from ldm.prepare.segmenter import Segmenter
from scripts import prepare
from tests.fixtures.refusal import refusal


def middle(pixels: np.ndarray, box: PixelBox) -> np.ndarray:
    """The middle of a box is the object."""
    inside = np.zeros(pixels.shape[:2], np.float32)
    x0, y0, x1, y1 = box
    inside[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] = 1
    return inside


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(prepare, "load_segmenter", lambda *_: Segmenter("middle", middle))
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in (1, 2):
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
        (folder / f"{seed}.txt").write_text("20 10 60 50")
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    return refusal(lambda: prepare.main(arguments), capsys)


def test_a_reference_that_is_none_is_named_before_the_work(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, str(photos), "--out", str(tmp_path / "obj"), "--reference", "99")
    assert "99: no such photo or picture file; the photos are 1, 2" in error
    assert not (tmp_path / "obj").exists()


def test_a_person_s_sheet_is_not_replaced_but_its_own_is(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "obj"
    out.mkdir()
    Image.new("RGB", (9, 9)).save(out / "sheet.png")
    before = (out / "sheet.png").read_bytes()
    error = refused(capsys, str(photos), "--out", str(out))
    assert "sheet.png was not written by this program" in error and "give another --out" in error
    assert [file.name for file in out.iterdir()] == ["sheet.png"]
    assert (out / "sheet.png").read_bytes() == before
    (out / "sheet.png").unlink()
    for _ in range(2):
        prepare.main([str(photos), "--out", str(out)])
        assert embedded_text(out / "sheet.png").items() >= prepare.SHEET.items()
    (out / "sheet.png").write_bytes(before)
    capsys.readouterr()
    error = refused(capsys, str(photos), "--out", str(out))
    assert "sheet.png was not written by this program" in error
    assert (out / "sheet.png").read_bytes() == before


def test_the_next_command_can_be_pasted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (out := tmp_path / "my bee").mkdir()
    monkeypatch.chdir(out)
    prepare.main([str(photos), "--out", str(out)])
    prepare.main([str(photos), "--out", "."])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    assert lines[0] == f"next: bash train.sh --dataset-dir '{out}' --name 'my bee'"
    assert lines[1] == "next: bash train.sh --dataset-dir . --name 'my bee'"


def test_a_reference_may_lie_in_the_home_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(photos))
    prepare.main([str(photos), "--out", str(tmp_path / "obj"), "--reference=~/2.png"])
    assert read_object_folder(tmp_path / "obj").reference == "2"
    prepare.main([str(photos), "--out", str(tmp_path / "obj"), "--reference=1"])
    assert read_object_folder(tmp_path / "obj").reference == "1"


def test_the_object_s_own_photos_are_no_other_objects(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "obj"
    (tmp_path / "link").symlink_to(photos)
    for category in (photos, tmp_path / "link"):
        error = refused(capsys, str(photos), "--category", str(category), "--out", str(out))
        assert "is the folder of the object's own photos; give pictures of other" in error
    assert not out.exists()
    (other := tmp_path / "other").mkdir()
    Image.new("RGB", (60, 80), (9, 200, 9)).save(other / "cup.png")
    (other / "cup.txt").write_text("20 10 60 50")
    prepare.main([str(photos), "--category", str(other), "--out", str(out)])
    assert "warning: --category" not in capsys.readouterr().err
    for suffix in (".png", ".txt"):
        (other / f"mug{suffix}").write_bytes((photos / f"1{suffix}").read_bytes())
    prepare.main([str(photos), "--category", str(other), "--out", str(out)])
    told = f"warning: --category: 1 of its pictures, like {other / 'mug.png'}, are photos of the object too"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("inner", ["", "data"])
def test_a_folder_of_photos_is_no_output(
    photos: Path, tmp_path: Path, inner: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if inner:
        (photos / inner).mkdir()
        for file in photos.glob("*.png"):
            file.rename(photos / inner / file.name)
    before = sorted(photos.rglob("*"))
    told = "is a folder of the given photos; give another"
    assert told in refused(capsys, str(photos), "--out", str(photos))
    (other := tmp_path / "other").mkdir()
    (other / "mug.png").write_bytes(next(photos.rglob("1.png")).read_bytes())
    assert told in refused(capsys, str(photos), "--category", str(other), "--out", str(other))
    assert sorted(photos.rglob("*")) == before and len([*other.iterdir()]) == 1
