"""Text files are UTF-8, with or without byte order mark; bad ones and unknown names are one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldm.data.text import check_names, read_text, whole_number


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_8_16_and_32_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_text("1 2\r\nübung\n", encoding, newline="")
    assert read_text(tmp_path / "a.txt") == "1 2\nübung\n"


@pytest.mark.parametrize("text", ["", "7", "10 20\n"])
def test_short_texts_are_no_utf_16(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    assert read_text(tmp_path / "a.txt") == text


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_other_encodings_are_one_line(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_text("1 2\ncafé, 3\n", encoding)
    with pytest.raises(
        ValueError, match=r"a\.txt: not readable as UTF-8 text: line 2, 'café, 3' in .*; save it"
    ):
        read_text(tmp_path / "a.txt")


def test_whole_numbers_as_spreadsheets_write_them() -> None:
    for value in (12, "12", 12.0, "12.0", " 12 ", "1.2e1"):
        assert whole_number(value, "seed") == 12
    assert whole_number("9007199254740993", "seed") == 9007199254740993, "not through a float"
    for bad in ("", "x", "1.5", 1.5, True, None, "nan", "inf", "1e999999999", "1,5", [1]):
        with pytest.raises(ValueError, match=r"here: seed .*; expected a whole number"):
            whole_number(bad, "here: seed")


def test_a_missing_file_is_named_by_its_kind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.txt: no such ROI file"):
        read_text(tmp_path / "none.txt", "ROI file")


def test_the_nearest_name_is_suggested() -> None:
    check_names({"seed": 1}, ["seed", "steps"], "here")
    with pytest.raises(ValueError, match=r"here: unknown 'stepz'; did you mean steps\?"):
        check_names({"stepz": 1}, ["seed", "steps"], "here")
    with pytest.raises(ValueError, match=r"there are seed, steps"):
        check_names({"quux": 1}, ["seed", "steps"], "here")


def test_a_binary_file_is_no_text_of_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "work.csv").write_bytes(b"PK\3\4\n\xff\0\0")  # a renamed spreadsheet
    with pytest.raises(ValueError, match=r"work\.csv is binary, no text; give a manifest as text"):
        read_text(tmp_path / "work.csv", "manifest")
