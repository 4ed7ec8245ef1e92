"""An object folder: what is read from it, and that every fault is reported at once, with its remedy."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.data.exif import upright_pixels as turned_upright
from ldm.data.insertset import load_insertset, sample_in_folder
from ldm.data.mask_levels import read_silhouette
from ldm.data.picture import read_rgb
from ldm.prepare.photo_files import known_beside

SIZE = (40, 30)  # width, height


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 60, 20)).save(path)
    return path


def boxes(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The smallest valid folder: one few-shot picture, one reference."""
    root = tmp_path / "mug"
    picture(root / "data" / "1.jpg")
    boxes(root / "bbox" / "1.txt", "5 5.5 30 25")
    picture(root / "test.jpg")
    return root


def faults(root: Path) -> list[str]:
    """The reported faults, one a line, without the headline."""
    with pytest.raises(ValueError) as caught:
        load_insertset(root)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_one_picture_is_enough(folder: Path) -> None:
    found = load_insertset(folder)
    assert [(sample.image.name, sample.boxes) for sample in found.few_shot] == [
        ("1.jpg", ((5, 5.5, 30, 25),))
    ]
    assert found.same_category == ()
    assert found.reference == folder / "test.jpg"
    assert found.root == folder


def test_pairs_by_stem_in_natural_order_over_all_suffixes(folder: Path) -> None:
    for name in ("10.png", "2.WEBP", "3.jpeg", "21.tif", ".hidden.png", "notes.md"):
        if name == "notes.md":
            (folder / "data" / name).write_text("not a picture")
        else:
            picture(folder / "data" / name)
            boxes(folder / "bbox" / f"{Path(name).stem}.txt", "0 0 4 5", "", "1 2 3 4")
    (folder / "bbox" / ".hidden.txt").unlink()
    found = load_insertset(folder).few_shot
    assert [sample.image.name for sample in found] == ["1.jpg", "2.WEBP", "3.jpeg", "10.png", "21.tif"]
    assert found[1].boxes == ((0, 0, 4, 5), (1, 2, 3, 4))


def test_same_category_pictures_are_kept_apart(folder: Path) -> None:
    picture(folder / "reg_data" / "cup.jpg")
    boxes(folder / "reg_bbox" / "cup.txt", "1 1 9 9")
    found = load_insertset(folder)
    assert [sample.image.name for sample in found.same_category] == ["cup.jpg"]
    assert len(found.few_shot) == 1


def test_png_under_a_jpg_name_is_fine(folder: Path) -> None:
    Image.new("RGBA", SIZE, (1, 2, 3, 128)).save(folder / "data" / "1.jpg", format="PNG")
    assert len(load_insertset(folder).few_shot) == 1


def test_stray_test_picture_is_never_a_training_picture(folder: Path) -> None:
    stray = picture(folder / "data" / "test.jpg")
    assert [sample.image.name for sample in load_insertset(folder).few_shot] == ["1.jpg"]
    assert load_insertset(folder).reference == folder / "test.jpg"
    (folder / "test.jpg").unlink()
    assert load_insertset(folder).reference == stray


def test_a_boxed_test_picture_is_an_ordinary_one(folder: Path) -> None:
    picture(folder / "data" / "test.jpg")
    boxes(folder / "bbox" / "test.txt", "1 1 9 9")
    assert [sample.image.name for sample in load_insertset(folder).few_shot] == ["1.jpg", "test.jpg"]
    (folder / "test.jpg").unlink()
    assert faults(folder)[0].startswith("test.jpg: no reference")


def test_rounding_overhang_is_clamped_and_more_is_a_fault(folder: Path) -> None:
    boxes(folder / "bbox" / "1.txt", "-1 -0.5 41 30.9")
    assert load_insertset(folder).few_shot[0].boxes == ((0, 0, 40, 30),)
    for line in ("-1.1 0 5 5", "0 -2 5 5", "0 0 41.5 5", "0 0 5 32", "40.2 0 40.9 5"):
        boxes(folder / "bbox" / "1.txt", line)
        assert len(faults(folder)) == 1, line


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1 2 3", "3 values, expected 4"),
        ("1 2 3 4 5", "5 values"),
        ("1, 2, x, 4", "'x' is not a number"),
        ("1 2 3 nan", "'nan' is not a number"),
        ("1 2 inf 4", "'inf' is not a number"),
        ("9 2 9 8", "empty"),
        ("1 8 9 2", "empty"),
        ("0 0 400 20", "40 x 30"),
        ("", "no box"),
    ],
)
def test_a_bad_box_line_is_named_with_its_remedy(folder: Path, line: str, reason: str) -> None:
    boxes(folder / "bbox" / "1.txt", line)
    [fault] = faults(folder)
    assert fault.startswith("bbox/1.txt: ")
    assert reason in fault


def test_small_faults_of_same_category_pictures_are_counted_in_one_warning(folder: Path) -> None:
    for stem, lines in {
        "a": ("1 1 9 9 0", "2 2 8 8 0.9"),
        "b": ("-2.5 0 41 32",),
        "c": ("0 0 40.5 30",),
        "d": (),
    }.items():
        picture(folder / "reg_data" / f"{stem}.jpg")
        boxes(folder / "reg_bbox" / f"{stem}.txt", *lines)
    picture(folder / "reg_data" / "e.jpg")
    with pytest.warns(UserWarning) as caught:
        found = load_insertset(folder)
    assert [str(warning.message) for warning in caught] == [
        f"{folder}: among the same-category pictures: 2 pictures without box, left out; 2 fifth "
        "numbers, ignored; 1 boxes reaching outside, clipped"
    ]
    assert [(sample.image.name, sample.boxes) for sample in found.same_category] == [
        ("a.jpg", ((1, 1, 9, 9), (2, 2, 8, 8))),
        ("b.jpg", ((0, 0, 40, 30),)),
        ("c.jpg", ((0, 0, 40, 30),)),
    ]
    for line in ("0 0 44 9", "1 2 3 4 5 6", "1 2 x 4 5"):
        boxes(folder / "reg_bbox" / "c.txt", line)
        [fault] = faults(folder)
        assert fault.startswith("reg_bbox/c.txt: line 1"), line


def test_every_fault_is_reported_at_once(folder: Path) -> None:
    (folder / "test.jpg").unlink()
    boxes(folder / "bbox" / "1.txt", "1 1 5 5", "1 1", "1 1 99 9")
    picture(folder / "data" / "2.jpg")
    boxes(folder / "bbox" / "3.txt", "1 1 5 5")
    (folder / "data" / "4.jpg").write_bytes(b"no picture at all")
    boxes(folder / "bbox" / "4.txt", "x 1 5 5")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(folder / "data" / "5.jpg")
    whole = (folder / "data" / "5.jpg").read_bytes()
    (folder / "data" / "5.jpg").write_bytes(whole[: len(whole) // 2])  # opens, but does not decode
    boxes(folder / "bbox" / "5.txt", "1 1 5 5")
    picture(folder / "data" / "1.png")
    picture(folder / "reg_data" / "6.jpg")
    boxes(folder / "reg_bbox" / "6.txt", "1 2 3")
    (folder / "bbox" / "7.txt").write_bytes(b"1 1 5 5 \xe9")
    picture(folder / "data" / "7.jpg")
    found = faults(folder)
    expected = [
        ("data/1.png: ", "same stem"),
        ("bbox/1.txt: line 2", "values"),
        ("bbox/1.txt: line 3", "outside"),
        ("data/2.jpg: ", "bbox/2.txt"),
        ("bbox/3.txt: ", "no picture data/3.*"),
        ("data/4.jpg: ", "not a readable picture"),
        ("bbox/4.txt: line 1", "not a number"),
        ("data/5.jpg: ", "broken picture"),
        ("bbox/7.txt: ", "not readable as UTF-8"),
        ("reg_bbox/6.txt: line 1", "3 values"),
        ("test.jpg: ", "no reference"),
    ]
    for start, reason in expected:
        assert sum(fault.startswith(start) and reason in fault for fault in found) == 1, (
            start,
            reason,
            found,
        )
    assert len(found) == len(expected)


def test_unreadable_and_doubled_references_are_faults(folder: Path) -> None:
    picture(folder / "test.png")
    assert faults(folder) == ["test.png: a second reference; keep one of test.*"]
    (folder / "test.png").unlink()
    (folder / "test.jpg").write_bytes(b"")
    assert [fault.split(":")[0] for fault in faults(folder)] == ["test.jpg"]


def test_silhouettes_go_with_pictures_of_their_size(folder: Path) -> None:
    assert load_insertset(folder).few_shot[0].mask is None
    (folder / "mask").mkdir()
    Image.new("L", SIZE, 255).save(folder / "mask/1.png")
    [found] = load_insertset(folder).few_shot
    assert found.mask == folder / "mask/1.png"
    Image.new("L", (41, 30), 255).save(folder / "mask/1.png")
    (folder / "mask/none.png").write_bytes((folder / "mask/1.png").read_bytes())
    named, sized = faults(folder)
    assert named == "mask/none.png: no picture data/none.*; remove this file"
    assert sized == "mask/1.png: 41 x 30 pixels, its picture is 40 x 30; make them the same size"
    (folder / "mask/none.png").unlink()
    Image.new("L", SIZE, 1).save(folder / "mask/1.png")
    Image.new("L", (9, 9), 255).save(folder / "test_mask.png")
    black, reference = faults(folder)
    assert black == "mask/1.png: its brightest level is 1; a silhouette is white, 255, on black"
    assert reference.startswith("test_mask.png: 9 x 9 pixels, its picture is 40 x 30")


def test_a_silhouette_may_be_opaque_instead_of_white(folder: Path) -> None:
    (folder / "mask").mkdir()
    mask = Image.new("LA", SIZE, (255, 0))
    mask.paste((255, 255), (5, 5, 30, 25))
    mask.save(folder / "mask/1.png")
    [sample] = load_insertset(folder).few_shot
    assert sample.mask is not None
    levels = read_silhouette(sample.mask)
    assert (levels[5:25, 5:30] == 255).all() and (levels > 0).sum() == 20 * 25


def test_a_huge_picture_is_a_fault(folder: Path) -> None:
    Image.new("1", (14000, 13000)).save(folder / "data/1.png")
    (folder / "data/1.jpg").unlink()
    assert faults(folder) == ["data/1.png: 182 megapixels are too many; give a smaller picture"]


def test_the_digests_name_every_file_that_is_learnt_from(folder: Path) -> None:
    (folder / "mask").mkdir()
    for name in ("mask/1.png", "test_mask.png"):
        Image.new("L", SIZE, 255).save(folder / name)
    before = load_insertset(folder).digests()
    assert before.keys() == {"data/1.jpg", "test.jpg", "test_mask.png"}
    for name, told in {"mask/1.png": "data/1.jpg", "test_mask.png": "test_mask.png"}.items():
        Image.new("L", SIZE, 254).save(folder / name)
        after = load_insertset(folder).digests()
        assert [key for key in after if after[key] != before[key]] == [told]
        before = after


def test_no_few_shot_picture_is_a_fault(folder: Path) -> None:
    (folder / "data" / "1.jpg").rename(folder / "1.jpg")
    found = faults(folder)
    assert found[0].startswith("data: no few-shot picture")
    assert found[1].startswith("bbox/1.txt: no picture")


def test_a_missing_folder_is_named_with_the_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.*bbox/1\.txt"):
        load_insertset(tmp_path / "nowhere")


KINDS = [".jpg", ".png", ".webp", ".tif", ".avif"]


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("same_category", [False, True])
def test_boxes_count_in_the_picture_that_a_viewer_shows(
    folder: Path, orientation: int, suffix: str, same_category: bool
) -> None:
    """Oracle: a box painted into the shown picture, which is stored turned."""
    shown = np.zeros((60, 80, 3), np.uint8)
    shown[8:40, 24:56] = 255
    back = {6: 8, 8: 6}.get(orientation, orientation)  # undoes the turn
    stored = turned_upright(shown, back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    images, texts = ("reg_data", "reg_bbox") if same_category else ("data", "bbox")
    path = folder / images / f"2{suffix}"
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(stored).save(path, exif=exif, quality=100)
    boxes(folder / texts / "2.txt", "24 8 56 40")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pictures that EXIF turns")
        found = load_insertset(folder)
    sample = found.same_category[0] if same_category else found.few_shot[1]
    assert sample.boxes == ((24, 8, 56, 40),)
    white = read_rgb(sample.image)[..., 0] > 127
    assert white.shape == (60, 80) and white[9:39, 25:55].all() and not white[:, 58:].any()
    assert abs(int(white.sum()) - 32 * 32) < 64


def test_boxes_of_the_stored_picture_are_read_there_if_they_fit_nowhere_else(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 30)).save(folder / "data/2.jpg", exif=exif)
    boxes(folder / "bbox/2.txt", "10 5 70 25")
    with pytest.warns(
        UserWarning, match=r"bbox/2\.txt: line 1, '10 5 70 25': read as pixels of the stored picture"
    ):
        assert load_insertset(folder).few_shot[1].boxes == ((5, 10, 25, 70),)
    (folder / "mask").mkdir()
    Image.new("L", (80, 30), 255).save(folder / "mask/2.png")
    with pytest.warns(UserWarning):
        [fault] = faults(folder)
    assert fault.startswith(
        "mask/2.png: 80 x 30 pixels, its picture is 30 x 80, as viewers show it (EXIF turns it)"
    )


def test_one_picture_s_boxes_are_read_as_those_of_its_folder(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, text in (("2", "10 5 70 25"), ("3", "4 5 20 25")):  # those of 3.jpg alone may be meant as shown
        Image.new("RGB", (80, 30)).save(folder / f"data/{name}.jpg", exif=exif)
        boxes(folder / f"bbox/{name}.txt", text)
    with pytest.warns(UserWarning, match="pixels of the stored picture"):
        whole = load_insertset(folder).few_shot
    for sample in whole:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            alone = sample_in_folder(sample.image)
            assert alone is not None and alone.boxes == sample.boxes
            assert known_beside(sample.image).box == sample.boxes[0]


def test_pictures_of_kinds_that_are_not_read_are_faults_unless_beside_one_that_is(folder: Path) -> None:
    for name in ("1.psd", ".DS_Store", "._1.jpg", "Thumbs.db", "notes.txt"):
        (folder / "data" / name).write_bytes(b"8BPS")
    assert len(load_insertset(folder).few_shot) == 1
    picture(folder / "data/2.bmp").rename(folder / "data/2.tga")
    (folder / "data/2.tga").write_bytes(b"no picture")
    boxes(folder / "bbox/2.txt", "1 1 9 9")
    assert faults(folder) == ["data/2.tga: not a readable picture; save it as PNG, TIFF, JPEG or WebP"]
    (folder / "data/2.tga").rename(folder / "data/2.heic")
    (folder / "data/2.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    [fault] = faults(folder)
    assert fault.startswith("data/2.heic: ") and ("heic" in fault)


@pytest.mark.parametrize("name", ["mask/1.png", "data/2.jpg", "bbox/2.txt", "reg_mask/a.png", "test.png"])
def test_a_folder_that_is_called_like_a_file_is_a_fault(folder: Path, name: str) -> None:
    (folder / name).mkdir(parents=True)
    assert faults(folder) == [f"{name}: a folder; expected a file of this name, so move or remove it"]


@pytest.mark.parametrize("name", ["2.BMP", "2.gif", "2.JFIF", "2.jpe", "2.avif"])
def test_all_kinds_that_are_read_count(folder: Path, name: str) -> None:
    kind = {".jfif": "JPEG", ".jpe": "JPEG"}.get(Path(name).suffix.lower())
    Image.new("RGB", SIZE).save(folder / "data" / name, kind)
    boxes(folder / "bbox/2.txt", "1 1 9 9")
    assert [sample.image.name for sample in load_insertset(folder).few_shot] == ["1.jpg", name]


def test_an_animated_picture_is_never_taken_silently(folder: Path) -> None:
    frames = [Image.new("RGB", SIZE, (90 * i, 0, 0)) for i in range(3)]
    frames[0].save(folder / "data/2.gif", save_all=True, append_images=frames[1:])
    boxes(folder / "bbox/2.txt", "1 1 9 9")
    with pytest.warns(UserWarning, match=r"2\.gif: animated or of several pages, the first of 3 is taken"):
        load_insertset(folder)
