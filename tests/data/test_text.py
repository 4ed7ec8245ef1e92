"""Text files are UTF-8, with or without byte order mark; bad ones and unknown names are one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldm.data.text import check_names, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf_8_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_text("1 2\r\nübung\n", encoding, newline="")
    assert read_text(tmp_path / "a.txt") == "1 2\nübung\n"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_one_line(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_text("übung", encoding)
    with pytest.raises(ValueError, match=r"a\.txt: not readable as UTF-8 text \([^\n]*\); save it as UTF-8$"):
        read_text(tmp_path / "a.txt")


def test_a_missing_file_is_named_by_its_kind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.txt: no such ROI file"):
        read_text(tmp_path / "none.txt", "ROI file")


def test_the_nearest_name_is_suggested() -> None:
    check_names({"seed": 1}, ["seed", "steps"], "here")
    with pytest.raises(ValueError, match=r"here: unknown 'stepz'; did you mean steps\?"):
        check_names({"stepz": 1}, ["seed", "steps"], "here")
    with pytest.raises(ValueError, match=r"there are seed, steps"):
        check_names({"quux": 1}, ["seed", "steps"], "here")
