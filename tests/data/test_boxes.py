"""Boxes in the pixels that a viewer shows; other conventions are read where nothing else can be meant."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import pytest

from ldm.data.boxes import Frame, box_in, parse_box, read_box_file, read_boxes, upright_box
from ldm.data.text import numbers_of

WIDE = Frame(300, 200)


def read(*numbers: float, frame: Frame = WIDE) -> tuple[float, ...]:
    return box_in(numbers, frame, "box")


def quietly(*numbers: float, frame: Frame = WIDE) -> tuple[float, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read(*numbers, frame=frame)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10 20 30 40", (10, 20, 30, 40)),
        ("10,20,30,40", (10, 20, 30, 40)),
        ("10, 20, 30, 40", (10, 20, 30, 40)),
        ("10;20;30;40", (10, 20, 30, 40)),
        ("10\t20\n30\r\n40\n", (10, 20, 30, 40)),
        ("[10, 20, 30, 40]", (10, 20, 30, 40)),
        ("10,20 30,40", (10, 20, 30, 40)),
        ("10,5 20 30,25 40", (10.5, 20, 30.25, 40)),
        ("10,5;20,5;30,5;40,5", (10.5, 20.5, 30.5, 40.5)),
        ("10,5, 20,5, 30,5, 40,5", (10.5, 20.5, 30.5, 40.5)),
        ("1e1 2.0e1 30. 40", (10, 20, 30, 40)),
        ("10,20,30,40,", (10, 20, 30, 40)),
        ("10,5 20 30,5 40;\r\n", (10.5, 20, 30.5, 40)),
        ("10px 20 px 30.5px 40", (10, 20, 30.5, 40)),
        ("10% 20 % 50,5% 60%", (0.1, 0.2, 0.505, 0.6)),
        ("10%,20%,50%,60%", (0.1, 0.2, 0.5, 0.6)),
        ("0,125 0,25 0,5 0,75", (0.125, 0.25, 0.5, 0.75)),
        ("1,125 20,5 30 40", (1.125, 20.5, 30, 40)),
    ],
)
def test_numbers_as_programs_write_them(text: str, expected: tuple[float, ...]) -> None:
    assert numbers_of(text) == expected
    assert parse_box(text, "here") == expected


@pytest.mark.parametrize("value", [["10,5", "20", "30,5", "40"], ["10.5", "20px", "30.5", "40"]])
def test_words_of_a_list_are_read_as_those_of_a_text(value: list[str]) -> None:
    assert parse_box(value, "here") == (10.5, 20, 30.5, 40)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("1,200 1,300 2,500 2,900", "'1,200' may be 1.200 or 1200; write it without comma"),
        ("10% 20% 50 60", "only some are per cent"),
        ("10% 20% 50% 150%", "per cent of the picture lie between 0% and 100%"),
        ("10cm 20cm 50cm 60cm", "'10cm' is not a number"),
        ([10**400, 1, 2, 3], "is not a number"),
    ],
)
def test_what_may_mean_two_things_is_refused(text: object, fault: str) -> None:
    with pytest.raises(ValueError, match=r"^here: box .*; expected four numbers.*in pixels") as error:
        parse_box(text, "here")
    assert fault in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 250


@pytest.mark.parametrize(
    "value", ["10 20 x 40", "10 20 nan 40", [1, 2, "inf", 4], [1, 2, 3], "1 2 3", "", True]
)
def test_what_is_no_box_is_one_line(tmp_path: Path, value: object) -> None:
    with pytest.raises(
        ValueError, match=r"^here: box .*; expected four numbers x0 y0 x1 y1 in pixels \([^\n]*\)$"
    ):
        parse_box(value, "here")
    if isinstance(value, str):
        (tmp_path / "b.txt").write_text(value)
        with pytest.raises(ValueError, match=r"b\.txt: box .*; expected four numbers x0 y0 x1 y1"):
            read_box_file(tmp_path / "b.txt")
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        read_box_file(tmp_path / "none.txt")


def test_corners_in_pixels_are_taken_as_they_are() -> None:
    assert quietly(10, 20, 30.5, 40) == (10, 20, 30.5, 40)
    assert quietly(-1, -0.5, 301, 200.9) == (0, 0, 300, 200), "rounding"
    assert quietly(10, 20, 250, 190) == (10, 20, 250, 190), "though it may be x y width height"


def test_shares_of_the_picture_are_read_with_a_warning() -> None:
    with pytest.warns(
        UserWarning, match=r"^box 0\.1 0\.2 0\.5 0\.6: read as shares of the picture: 30 40 150 120$"
    ):
        assert read(0.1, 0.2, 0.5, 0.6) == pytest.approx((30, 40, 150, 120))
    with pytest.warns(UserWarning, match="read as shares of the picture: 30 40 150 120"):
        assert read(*parse_box("10% 20% 50% 60%", "box")) == pytest.approx((30, 40, 150, 120))
    with pytest.warns(UserWarning, match="shares of the picture"):
        assert read(0, 0, 1, 1) == (0, 0, 300, 200)
    with pytest.warns(UserWarning, match="shares of the picture: 0 0 300"):
        assert read(-0.004, 0, 1.003, 0.5) == (0, 0, 300, 100), "rounded shares are clipped"
    sideways = Frame(300, 200, 6)
    with pytest.warns(UserWarning, match="shares"):
        assert read(0.1, 0.2, 0.5, 0.6, frame=sideways) == pytest.approx((20, 60, 100, 180))


def test_swapped_corners_are_read_only_if_they_cannot_be_width_and_height() -> None:
    with pytest.warns(UserWarning, match="box 280 150 100 80: read as swapped corners: 100 80 280 150"):
        assert read(280, 150, 100, 80) == (100, 80, 280, 150)
    both = r"is 100 80 200 110 \(swapped corners\) or 200 110 300 190 \(x y width height\) or 150 70 250 150 "
    both += r"\(x y of the centre, width height\) meant\?"
    with pytest.raises(ValueError, match=rf"box 200 110 100 80: an empty box, .*; {both}"):
        read(200, 110, 100, 80)
    with pytest.raises(ValueError, match=r"is 9 2 18 10 \(x y width height\) meant\?"):
        read(9, 2, 9, 8)
    with pytest.raises(ValueError, match=r"or 120 70 180 130 \(x y of the centre, width height\) meant\?"):
        read(0.5, 0.5, 0.2, 0.3)  # a line of YOLO without its class


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ((-5, 10, 100, 90), "outside the picture, which is 300 x 200 pixels .*; inside it is 0 10 100 90"),
        ((10, 10, 310, 90), "inside it is 10 10 300 90"),
        ((400, 10, 500, 90), "outside the picture, .*; correct the box"),
        ((-9, -9, -2, -2), "outside the picture"),
        ((10.2, 10.1, 10.9, 30), "less than a pixel wide or high"),
        ((300.2, 10, 300.9, 30), "less than a pixel"),
        ((-30, -40, -50, -60), "an empty box"),
    ],
)
def test_what_fits_no_convention_is_refused_with_what_was_meant(
    numbers: tuple[float, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        read(*numbers)
    assert "\n" not in str(error.value)


def test_a_region_may_reach_beyond_the_picture() -> None:
    assert box_in((-50, -60, 350, 340), WIDE, "region", may_leave=True) == (-50, -60, 350, 340)


@pytest.mark.parametrize("orientation", range(5, 9))
def test_a_box_that_fits_the_stored_picture_only_is_read_there(orientation: int) -> None:
    sideways = Frame(300, 200, orientation)
    assert sideways.shown == (200, 300)
    assert quietly(10, 20, 190, 250, frame=sideways) == (10, 20, 190, 250)
    with pytest.warns(UserWarning, match="read as pixels of the stored picture, before EXIF turns it"):
        assert read(10, 20, 250, 190, frame=sideways) == upright_box((10, 20, 250, 190), sideways)


def test_upright_keeps_the_order_of_corners() -> None:
    for orientation in range(1, 9):
        x0, y0, x1, y1 = upright_box((1, 2, 5, 9), Frame(40, 30, orientation))
        assert x0 < x1 and y0 < y1


def folder(root: Path, frame: Frame, *lines: str) -> tuple[dict[Path, Frame | None], list[str]]:
    """A box file for each line."""
    files: dict[Path, Frame | None] = {}
    for number, line in enumerate(lines, start=1):
        path = root / "bbox" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(line)
        files[path] = frame
    return files, []


def test_the_files_of_a_folder_follow_one_convention(tmp_path: Path) -> None:
    sideways = Frame(300, 200, 6)
    files, faults = folder(tmp_path, sideways, "10 20 250 190", "10 20 100 120")
    with pytest.warns(
        UserWarning, match=r"bbox/1\.txt: line 1, .* read as pixels of the stored picture"
    ) as said:
        found = read_boxes(files, tmp_path, faults)
    assert [found[path][0] for path in files] == [
        upright_box((10, 20, 250, 190), sideways),
        (80, 10, 180, 100),
    ]
    assert faults == [] and len(said) == 1 and "(2 boxes in all)" in str(said[0].message)

    files, faults = folder(tmp_path, sideways, "10 20 250 190", "10 20 100 280")  # one fits each only
    read_boxes(files, tmp_path, faults)
    [fault] = faults
    assert fault.startswith("bbox/1.txt: line 1, '10 20 250 190': outside the picture, which is 200 x 300")
    assert fault.endswith("is 10 10 180 250 (pixels of the stored picture, before EXIF turns it) meant?")


def test_turned_pictures_whose_boxes_fit_both_ways_are_said(tmp_path: Path) -> None:
    files, faults = folder(tmp_path, Frame(300, 200, 3), "10 20 100 120", "1 2 30 40")
    with pytest.warns(
        UserWarning, match=r"2 boxes of pictures that EXIF turns, like bbox/1\.txt: line 1: they count"
    ):
        found = read_boxes(files, tmp_path, faults)
    assert list(found.values()) == [((10, 20, 100, 120),), ((1, 2, 30, 40),)] and not faults


def test_lines_of_yolo_are_class_centre_and_size(tmp_path: Path) -> None:
    files, faults = folder(tmp_path, WIDE, "0 0.5 0.5 0.2 0.3", "15 0.1 0.1 0.2 0.2")
    with pytest.warns(
        UserWarning, match="'0 0.5 0.5 0.2 0.3': read as shares of the picture: 120 70 180 130"
    ):
        found = read_boxes(files, tmp_path, faults)
    assert [box for boxes in found.values() for box in boxes] == [
        pytest.approx((120, 70, 180, 130)),
        pytest.approx((0, 0, 60, 40)),
    ]
    assert parse_box("0 0,5 0,5 0,2 0,3", "here") == pytest.approx((0.4, 0.35, 0.6, 0.65)), "decimal commas"
    files, faults = folder(tmp_path, WIDE, "10 20 30 40 5")
    read_boxes(files, tmp_path, faults)
    assert "5 values, expected 4" in faults[0]
    read_boxes(files, tmp_path, faults, slips := Counter())
    assert dict(slips) == {"fifth numbers, ignored": 1}


def test_the_box_of_an_unreadable_picture_is_still_checked(tmp_path: Path) -> None:
    files, faults = folder(tmp_path, WIDE, "1 2 3")
    read_boxes(dict.fromkeys(files, None), tmp_path, faults)
    assert len(faults) == 1 and "3 values" in faults[0]
