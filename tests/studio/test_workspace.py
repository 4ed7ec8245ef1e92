"""Names and paths of requests: none leads out of the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldm.config.loader import ROOT
from ldm.data.files import PICTURE_SUFFIXES
from ldm.studio.workspace import Workspace, checked_name, new_id, stored_name, without_name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "-a", "a b", "a\0", "a\n", "é", "x" * 65, "a;b"]
)
def test_names_that_are_no_names(name: str) -> None:
    with pytest.raises(ValueError, match="expected a name"):
        checked_name(name)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("room.jpg", "room.jpg"),
        ("<img src=x onerror=alert(1)>.png", "img_src_x_onerror_alert_1.png"),
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\photos\\my cup.JPG", "my_cup.jpg"),
        ("$(rm -rf ~).webp", "rm_-rf.webp"),
        (".png.png", "png.png"),
        ("日本.tiff", "picture.tiff"),
    ],
)
def test_stored_names_mean_nothing_to_shells_and_paths(given: str, stored: str) -> None:
    assert stored_name(given, PICTURE_SUFFIXES) == stored


@pytest.mark.parametrize("given", ["a.exe", "a", "", "a.png/..", ".png"])
def test_only_pictures_are_stored(given: str) -> None:
    with pytest.raises(ValueError, match="expected a picture"):
        stored_name(given, PICTURE_SUFFIXES)


def test_paths_stay_in_the_project(tmp_path: Path) -> None:
    own = Workspace(tmp_path / "studio", ROOT / "configs/mini.yaml")
    own.make()
    (tmp_path / "outside").mkdir()
    (own.folder / "objects/link").symlink_to(tmp_path / "outside")
    assert own.inside("examples/objects") == ROOT / "examples/objects"
    assert own.inside(str(own.folder / "objects")) == (own.folder / "objects").resolve()
    hidden = str(own.folder / "objects/.ssh")
    for given in ("..", "/etc/passwd", "examples/../../x", str(own.folder / "objects/link"), hidden, ".git"):
        with pytest.raises(ValueError, match="not in the project's folder"):
            own.inside(given)


def test_a_warning_of_a_job_does_not_repeat_its_background() -> None:
    for name in (new_id(), "room", "my-room_321_2"):
        assert without_name(f"{name}: shrunk 4.9 times") == "shrunk 4.9 times"
    assert without_name("the given ROI is 4 x 3 px: 1 2") == "the given ROI is 4 x 3 px: 1 2"
