"""Text files are UTF-8, with or without byte order mark; bad ones and unknown names are one line.

In YAML numbers are decimal, dates are text, and a key counts once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ldm.data.text import check_names, parse_yaml, read_text, suggestion, whole_number


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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", "010"), ("0", 0), ("-12", -12), ("1_000", 1000), ("1:30", "1:30"), ("0x1f", "0x1f"),
        ("1e-4", 1e-4), ("1.5", 1.5), ("-.5", -0.5), ("2.", 2.0), ("1:30.5", "1:30.5"),
        ("2024-13-45", "2024-13-45"),
        ("2024-01-01: 3", {"2024-01-01": 3}), ("yes", True), ("~", None), ("", None),
        ("{5: [a, 'b']}", {"5": ["a", "b"]}),
    ],
)  # fmt: skip
def test_values_are_those_that_people_mean(text: str, value: Any) -> None:
    found = parse_yaml(text)
    assert found == value and type(found) is type(value)


def test_anchors_may_be_merged_and_overridden() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}"
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "while parsing a flow"),
        ("a: 1\nb: {c: 1, c: 2}", "found the key 'c' twice"),
        ("a: 1\na: 2", "found the key 'a' twice"),
        ("[" * 5000, "nested too deeply"),
        ("&a [*a]", "Circular reference"),
        ("? [a, b]\n: 3", "unhashable key"),
        ("? !!timestamp 2024-01-01\n: 3", "keys must be str"),
        ("!!timestamp 2024-13-45", "month"),
    ],
)
def test_what_is_not_readable_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        parse_yaml(text)
    assert "\n" not in str(error.value)


def test_a_binary_file_is_no_text_of_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "work.csv").write_bytes(b"PK\3\4\n\xff\0\0")  # a renamed spreadsheet
    with pytest.raises(ValueError, match=r"work\.csv is binary, no text; give a manifest as text"):
        read_text(tmp_path / "work.csv", "manifest")


def test_of_a_removed_name_it_is_said_what_replaces_it() -> None:
    with pytest.raises(ValueError, match="unknown 'paste_mask'; older versions had it; leave it out"):
        check_names({"paste_mask": 1}, ["mask"], "line 1")
    assert suggestion("--paste_mask", ["--mask"]) == suggestion("paste_mask", ["paste_margin"], "insert")
