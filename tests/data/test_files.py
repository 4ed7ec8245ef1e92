"""Files are listed in natural order; a folder's temporary files go, those of running processes stay."""

from __future__ import annotations

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from ldm.data.files import (
    LOCK,
    atomic_file,
    check_folder,
    file_digest,
    fitting_name,
    foreign_kind,
    list_files,
    locked_folder,
    natural_key,
    one_per_stem,
    other_pictures,
    path_of,
    pictures_in,
    sweep,
)


def test_natural_key_counts() -> None:
    assert sorted(["b10", "a", "b9", "10", "2", "1"], key=natural_key) == ["1", "2", "10", "a", "b9", "b10"]


def test_listed_are_visible_files_of_the_suffixes_in_natural_order(tmp_path: Path) -> None:
    for name in ("10.png", "9.JPG", ".3.png", "notes.txt", "2.tiff"):
        (tmp_path / name).touch()
    (tmp_path / "1.png").mkdir()
    assert [path.name for path in list_files(tmp_path)] == ["2.tiff", "9.JPG", "10.png"]
    assert [path.name for path in list_files(tmp_path, (".txt",))] == ["notes.txt"]
    assert list_files(tmp_path / "none") == []


def test_a_letter_comes_before_the_same_with_a_number(tmp_path: Path) -> None:
    for name in ("a.png", "a2.png", "a10.png", "01.png", "1.png", "1.bmp"):
        (tmp_path / name).touch()
    found = [path.name for path in list_files(tmp_path)]
    assert found == ["01.png", "1.bmp", "1.png", "a.png", "a2.png", "a10.png"]


def test_a_folder_holds_what_a_viewer_shows_and_names_what_is_not_read(tmp_path: Path) -> None:
    kinds = ["bmp", "GIF", "jfif", "jpe", "avif", "heic", "webp", "TIF"]
    for i, kind in enumerate(kinds):
        (tmp_path / f"{i}.{kind}").touch()
    (tmp_path / "8.png").symlink_to(tmp_path / "gone.png")
    for name in (".DS_Store", "._0.bmp", "Thumbs.db", "desktop.ini", "box.txt"):
        (tmp_path / name).touch()
    expected = [f"{i}.{kind}" for i, kind in enumerate(kinds)] + ["8.png"]
    assert [path.name for path in pictures_in(tmp_path)] == expected
    assert [path.name for path in pictures_in(tmp_path, (".txt",))] == [*expected, "box.txt"]


def test_pictures_of_other_kinds_and_endings_are_listed_unless_they_belong_to_one(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    jpeg = BytesIO()
    Image.new("RGB", (4, 4)).save(jpeg, "JPEG")
    for name in ("noending", "2.jpg_large", "1.png.bak", "1.psd", "._3", "4.pef"):
        (tmp_path / name).write_bytes(jpeg.getvalue())
    for name in ("x.TGA", "1.arw", "notes", "Thumbs.db"):
        (tmp_path / name).touch()
    assert [path.name for path in other_pictures(tmp_path)] == ["2.jpg_large", "4.pef", "noending", "x.TGA"]
    assert len(pictures_in(tmp_path)) == 5


def test_a_file_that_may_not_be_read_does_not_stop_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.png", "secret"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    monkeypatch.setattr("os.access", lambda path, mode: path.name != "secret")
    assert [path.name for path in pictures_in(tmp_path)] == ["1.png"]


def test_what_a_file_is_instead_of_a_picture_or_a_text(tmp_path: Path) -> None:
    file = tmp_path / "a"
    for start, kind in {
        b"": "an empty file",
        b"version https://git-lfs.github.com/spec/v1\n": "a Git LFS pointer",
        b"<!DOCTYPE html>": "a web page",
        b'<?xml version="1.0"?>\n<svg xmlns=""/>': "an SVG drawing",
        b"\0\0\0\x18ftypmp42": "a video",
        b"\0\0\0\x0cJXL \r\n": "a picture of a kind that is not read",
        b"PAR1": "",
        b"\0\0\0\x18ftypavif": "",
    }.items():
        file.write_bytes(start)
        assert foreign_kind(file).startswith(kind) and bool(foreign_kind(file)) == bool(kind)


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no picture; expected \.jpg, "):
        pictures_in(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder of pictures"):
        pictures_in(tmp_path / "none")


def test_two_files_of_one_name_are_named(tmp_path: Path) -> None:
    files = [tmp_path / "1.jpg", tmp_path / "2.png", tmp_path / "1.png"]
    assert one_per_stem(files[:2], lambda file: file.stem) == {"1": files[0], "2": files[1]}
    with pytest.raises(ValueError, match=r"1\.jpg and 1\.png go by the same name, '1'; rename or remove one"):
        one_per_stem(files, lambda file: file.stem)


def test_paths_as_users_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert path_of("~/a.png", tmp_path) == tmp_path / "home/a.png" == path_of("~/a.png")
    assert path_of("~\\pics\\a.png") == tmp_path / "home/pics/a.png"
    assert path_of("~", tmp_path) == tmp_path / "home"
    assert path_of("~a.png", tmp_path) == tmp_path / "~a.png"
    assert path_of("img\\a.png", tmp_path) == tmp_path / "img/a.png"
    assert path_of("/b/a.png", tmp_path) == Path("/b/a.png") and path_of("a.png") == Path("a.png")
    (tmp_path / "img\\a.png").touch()
    assert path_of("img\\a.png", tmp_path) == tmp_path / "img\\a.png"


def test_accents_may_be_letters_of_their_own(tmp_path: Path) -> None:
    """macOS writes them so; a manifest from there names the same file."""
    composed, apart = "caf\u00e9.png", "cafe\u0301.png"
    (tmp_path / composed).touch()
    assert path_of(apart, tmp_path) == path_of(composed, tmp_path) == tmp_path / composed
    (tmp_path / apart).touch()
    assert path_of(apart, tmp_path) == tmp_path / apart, "where both are there, each is its own"


def test_hidden_files_are_no_part_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/1.png").write_bytes(b"1")
    before = file_digest(tmp_path)
    (tmp_path / "data/.DS_Store").write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/a").write_bytes(b"x")
    assert file_digest(tmp_path) == before
    (tmp_path / "data/2.png").write_bytes(b"1")
    assert file_digest(tmp_path) != before


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt") as file:
        file.write(b"half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_long_names_are_cut_and_stay_different(tmp_path: Path) -> None:
    assert fitting_name("room", ".png") == "room.png"
    one, other = (fitting_name("é" * 150 + end, "_321.png") for end in ("a", "b"))
    assert one != other and one.endswith("_321.png") and len(os.fsencode(one)) <= 255
    longest = tmp_path / ("x" * 251 + ".txt")
    with atomic_file(longest) as file:  # its temporary file has a short name
        file.write(b"1")
    assert longest.read_bytes() == b"1"


def test_sweep_spares_running_processes(tmp_path: Path) -> None:
    ours, dead = tmp_path / f".0123abcd.{os.getpid()}.part", tmp_path / ".0123abcd.99999999.part"
    foreign = tmp_path / ".notes.99999999.part"
    ours.touch()
    dead.touch()
    foreign.touch()
    sweep(tmp_path)
    assert ours.exists() and foreign.exists() and not dead.exists()


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(ValueError, match=r"--out a/b: .*a is a file, not a folder"):
        check_folder(tmp_path / "a" / "b", "--out a/b")
    check_folder(tmp_path / "c" / "d", "--out c/d")


def test_digest_of_a_folder_counts_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    first = file_digest(tmp_path)
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert file_digest(tmp_path) != first and len(first) == 64


def test_a_folder_has_one_holder_until_its_process_ends(tmp_path: Path) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from ldm.data.files import locked_folder\n"
        "with locked_folder(Path(sys.argv[1]), ''): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "run")], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with (
            pytest.raises(ValueError, match=rf"run is being written by process {other.pid}; give another"),
            locked_folder(tmp_path / "run", "give another --name"),
        ):
            pass
        other.kill()  # nothing is tidied up
    with locked_folder(tmp_path / "run", ""):
        assert (tmp_path / "run" / LOCK).read_text() == str(os.getpid())
