"""Files are listed in natural order; a folder's temporary files go, those of running processes stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ldm.data.files import (
    atomic_file,
    check_folder,
    file_digest,
    fitting_name,
    list_files,
    locked_folder,
    natural_key,
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
    ours, dead = tmp_path / f".a.{os.getpid()}.part", tmp_path / ".a.99999999.part"
    ours.touch()
    dead.touch()
    sweep(tmp_path)
    assert ours.exists() and not dead.exists()


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
        assert (tmp_path / "run" / ".lock").read_text() == str(os.getpid())
