"""Backgrounds find their masks; what does not fit is said before a model is loaded."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.batch.work_item import MaskedBackground, pair, roi_in
from ldm.data.boxes import Frame, read_box_file
from ldm.insertion.roi import Roi


def save(path: Path, size: tuple[int, int] = (20, 10), value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


def save_mask(path: Path, size: tuple[int, int] = (20, 10)) -> Path:
    save(path, size, 0)
    pixels = np.zeros(size[::-1], np.uint8)
    pixels[2:5, 3:7] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_one_mask_serves_all_backgrounds(tmp_path: Path) -> None:
    images = [save(tmp_path / f"{i}.png") for i in (1, 2)]
    mask = save_mask(tmp_path / "m.png")
    assert pair(images, [mask]) == [MaskedBackground(image, mask) for image in images]


def test_a_test_bench_pairs_by_number_in_natural_order(tmp_path: Path) -> None:
    for i in (10, 2):
        save(tmp_path / f"image/{i}_img.png")
        save_mask(tmp_path / f"mask/{i}_mask.png")
    found = pair([tmp_path / "image"], [tmp_path / "mask"])
    assert [(c.name, c.mask.name) for c in found if c.mask] == [("2", "2_mask.png"), ("10", "10_mask.png")]


def test_lists_of_equal_length_pair_in_order_when_names_do_not_match(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a.png"), save(tmp_path / "b.png")
    m, n = save_mask(tmp_path / "m.png"), save_mask(tmp_path / "n.png")
    assert pair([a, b], [m, n]) == [MaskedBackground(a, m), MaskedBackground(b, n)]


def test_masks_given_in_another_order_still_go_by_name(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a.png"), save(tmp_path / "b.png")
    m, n = save_mask(tmp_path / "a_mask.png"), save_mask(tmp_path / "b_mask.png")
    assert pair([a, b], [n, m]) == [MaskedBackground(a, m), MaskedBackground(b, n)]


def test_accents_written_as_letters_of_their_own_do_not_part_a_pair(tmp_path: Path) -> None:
    a, b = save(tmp_path / "caf\u00e9.jpg"), save(tmp_path / "b.jpg")
    m, n = save_mask(tmp_path / "cafe\u0301_mask.png"), save_mask(tmp_path / "b_mask.png")
    assert pair([b, a], [m, n]) == [MaskedBackground(b, n), MaskedBackground(a, m)]


def test_a_background_does_not_get_the_mask_of_another_one(tmp_path: Path) -> None:
    images = [save(tmp_path / f"{name}.jpg") for name in "abc"]
    masks = [save_mask(tmp_path / f"{name}.png") for name in ("b", "a", "x")]
    with pytest.raises(ValueError, match=r"no mask for c\.jpg; name it like its background"):
        pair(images, masks)
    masks = [save_mask(tmp_path / f"{name}.png") for name in ("a", "b", "x")]
    assert [found.mask for found in pair(images, masks)] == masks


def test_several_masks_for_one_background_are_counted(tmp_path: Path) -> None:
    image, mask = save(tmp_path / "a.jpg"), save_mask(tmp_path / "m.png")
    for masks in ([mask, mask], [mask, mask, save_mask(tmp_path / "n.png")]):
        told = f"{len(masks)} masks were given for 1 background, a.jpg; give one, of any name"
        with pytest.raises(ValueError, match=re.escape(told)):
            pair([image], masks)
    own = save_mask(tmp_path / "a_mask.png")
    assert pair([image], [mask, own]) == [MaskedBackground(image, own)]


def test_a_background_without_a_mask_is_named(tmp_path: Path) -> None:
    save(tmp_path / "image/1.png")
    save(tmp_path / "image/2.png")
    save_mask(tmp_path / "mask/1.png")
    save_mask(tmp_path / "mask/3.png")
    with pytest.raises(ValueError, match=r"no mask for 2\.png"):
        pair([tmp_path / "image"], [tmp_path / "mask"])


def test_the_only_mask_of_a_folder_serves_its_own_background(tmp_path: Path) -> None:
    for i in (1, 2):
        save(tmp_path / f"image/{i}.png")
    mask = save_mask(tmp_path / "mask/2_mask.png")
    with pytest.raises(ValueError, match=r"no mask for 1\.png"):
        pair([tmp_path / "image"], [tmp_path / "mask"])
    (tmp_path / "image/1.png").unlink()
    assert pair([tmp_path / "image"], [tmp_path / "mask"]) == [
        MaskedBackground(tmp_path / "image/2.png", mask)
    ]


def test_nothing_marked_missing_files_and_empty_folders_are_said(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="--mask"):
        pair([image], [])
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        pair([tmp_path / "gone.png"], [image])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no picture"):
        pair([tmp_path / "empty"], [image])


def test_a_box_a_box_file_and_a_picture_mark_the_same(tmp_path: Path) -> None:
    image, mask = save(tmp_path / "a.png"), save_mask(tmp_path / "m.png")
    file = tmp_path / "box.txt"
    file.write_text("3\n2\n7\n5\n")
    masks = [
        MaskedBackground(image, mask).read()[1],
        MaskedBackground(image, file).read()[1],
        MaskedBackground(image, box=(3, 2, 7, 5)).read()[1],
    ]
    assert masks[0].sum() == 12
    assert (masks[0] == masks[1]).all() and (masks[0] == masks[2]).all()
    assert roi_in(read_box_file(file), Frame(20, 10)) == Roi(3, 2, 7, 5)


def test_names_of_results_drop_the_role() -> None:
    assert MaskedBackground(Path("x/0001_img.png")).name == "0001"
    assert MaskedBackground(Path("s01/background.png")).name == "s01"
    assert MaskedBackground(Path("beach.jpg")).name == "beach"


def test_two_files_of_one_name_are_named(tmp_path: Path) -> None:
    save(tmp_path / "image/1.png")
    save(tmp_path / "image/2.png")
    for name in ("1.png", "1_mask.png", "2.png"):
        save_mask(tmp_path / "mask" / name)
    with pytest.raises(ValueError, match=r"1\.png and 1_mask\.png go by the same name, '1'"):
        pair([tmp_path / "image"], [tmp_path / "mask"])


def test_regions_as_shares_and_beyond_the_background() -> None:
    with pytest.warns(UserWarning, match=r"region 0\.1 0\.1 0\.6 0\.6: read as shares .*: 20 10 120 60"):
        assert roi_in((0.1, 0.1, 0.6, 0.6), Frame(200, 100)) == Roi(20, 10, 120, 60)
    assert roi_in((-20, -30, 220, 210), Frame(200, 100)) == Roi(-20, -30, 220, 210)
    with pytest.raises(ValueError, match=r"region 9 9 1 1: an empty box"):
        roi_in((9, 9, 1, 1), Frame(200, 100))
