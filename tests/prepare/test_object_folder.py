"""Photos become an object folder that training reads; what a person corrects stays."""

from __future__ import annotations

import shlex
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.compositing.cut_out import PixelBox
from ldm.data.boxes import Box
from ldm.data.files import LOCK, file_digest
from ldm.data.insertset import load_insertset
from ldm.data.mask_levels import read_silhouette
from ldm.data.picture import read_rgb
from ldm.prepare.object_folder import (
    correct_photo,
    read_object_folder,
    remove_photo,
    write_object_folder,
)
from ldm.prepare.photo_files import find_photos
from ldm.prepare.segmenter import Segmenter
from ldm.prepare.sheet import draw_sheet

OBJECT = (40, 30, 120, 100)  # where it is in the photos, which are 160 x 130


def reds(pixels: np.ndarray, box: PixelBox) -> np.ndarray:
    """What is red is the object."""
    return ((pixels[..., 0] > 150) & (pixels[..., 1] < 120)).astype(np.float32)


REDS = Segmenter("reds", reds)


def pixels(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    image = random.integers(60, 140, (130, 160, 3), dtype=np.uint8)
    x0, y0, x1, y1 = OBJECT
    image[y0:y1, x0:x1] = (230, 30, 40)
    stripe = slice(y0 + 8 * seed, y0 + 8 * seed + 6)
    image[stripe, x0:x1] = (200, 100, 0)
    return image


def write_photo(folder: Path, name: str, seed: int, turn: int = 1) -> None:
    """With its box beside it; stored so that a viewer, which turns it by EXIF, shows `pixels`."""
    folder.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = turn, "a camera"
    stored = np.rot90(pixels(seed), 1) if turn == 6 else pixels(seed)
    Image.fromarray(np.ascontiguousarray(stored)).save(folder / name, quality=95, exif=exif)
    (folder / name).with_suffix(".txt").write_text("38 28 122 102")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in (1, 2, 3):
        write_photo(tmp_path / "photos", f"IMG_{seed}.jpg", seed)
    return tmp_path / "photos"


def prepare(photos: Path, out: Path, **more: object):  # type: ignore[no-untyped-def]
    return write_object_folder(out, find_photos(photos), segmenter=REDS, **more)  # type: ignore[arg-type]


def state(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != LOCK)
    return {path.relative_to(root).as_posix(): file_digest(path) for path in files}


def test_the_folder_is_what_training_reads(photos: Path, tmp_path: Path) -> None:
    prepared = prepare(photos, tmp_path / "o")
    insertset = load_insertset(tmp_path / "o")
    for i, sample in enumerate(insertset.few_shot, start=1):
        assert sample.image.read_bytes() == (photos / f"IMG_{i}.jpg").read_bytes()
        assert sample.boxes == ((38, 28, 122, 102),) and sample.mask is not None
        x0, y0, x1, y1 = OBJECT
        assert read_silhouette(sample.mask)[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].mean() > 250
    assert [photo.name for photo in prepared.photos] == ["1", "2", "3"] and prepared.reference in "123"
    assert read_rgb(insertset.reference).shape[:2] == (74, 84)
    assert read_silhouette(tmp_path / "o/test_mask.png").shape == (74, 84)
    assert all("small" in photo.warnings[0] for photo in prepared.photos)
    sheet = draw_sheet(prepared)
    assert sheet.size[1] > 3 * 320 and sheet.pixels.std() > 0


def test_the_same_command_again_changes_nothing(photos: Path, tmp_path: Path) -> None:
    first = prepare(photos, tmp_path / "o")
    before = state(tmp_path / "o")
    assert prepare(photos, tmp_path / "o") == first and state(tmp_path / "o") == before
    assert read_object_folder(tmp_path / "o") == first


def test_another_segmenter_proposes_anew_what_no_person_gave(tmp_path: Path) -> None:
    write_photo(tmp_path / "photos", "a.jpg", 1)
    (tmp_path / "photos/a.txt").unlink()

    def left(pixels: np.ndarray, box: PixelBox) -> np.ndarray:
        return reds(pixels, box) * (np.arange(pixels.shape[1]) < pixels.shape[1] // 2)

    widths = []
    for name, find in (("one", reds), ("two", left), ("three", reds)):
        segmenter = Segmenter(name, find)
        made = write_object_folder(tmp_path / "o", find_photos(tmp_path / "photos"), segmenter=segmenter)
        [photo] = made.photos
        assert photo.source == "proposed" and not photo.corrected
        widths.append(photo.box[2] - photo.box[0])
    assert widths[0] == widths[2] > 1.5 * widths[1]


def test_a_photo_turned_by_exif_counts_as_shown(tmp_path: Path) -> None:
    write_photo(tmp_path / "photos", "a.jpg", 1, turn=6)
    with pytest.warns(UserWarning, match="EXIF turns"):  # the given box
        prepare(tmp_path / "photos", tmp_path / "o")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # in the folder it is known how they count
        [sample] = load_insertset(tmp_path / "o").few_shot
        read_object_folder(tmp_path / "o")
    assert sample.mask is not None and read_silhouette(sample.mask).shape == (130, 160)
    assert sample.boxes == ((38, 28, 122, 102),)
    assert read_silhouette(sample.mask)[40:50, 50:110].mean() > 250


def test_what_was_wrong_beside_a_photo_is_read_again_once_it_is_corrected(
    photos: Path, tmp_path: Path
) -> None:
    """The first run has copied the photo when it fails."""
    (photos / "IMG_2.txt").write_text("38 28 190 102")
    with pytest.raises(
        ValueError, match=r"IMG_2\.txt: line 1, .* outside the picture.*inside it is 38 28 160"
    ):
        prepare(photos, tmp_path / "obj")
    (photos / "IMG_2.txt").write_text("30 20 130 110")
    Image.new("L", (130, 160), 255).save(photos / "IMG_3_mask.png")
    with pytest.raises(
        ValueError, match=r"IMG_3\.jpg: a silhouette of 130 x 160 px for a photo of 160 x 130"
    ):
        prepare(photos, tmp_path / "obj")
    mask = np.zeros((130, 160), np.uint8)
    mask[40:90, 50:110] = 255
    Image.fromarray(mask).save(photos / "IMG_3_mask.png")
    found = prepare(photos, tmp_path / "obj").photos
    assert [photo.box for photo in found[:2]] == [(38, 28, 122, 102), (30, 20, 130, 110)]
    assert np.array_equal(read_silhouette(found[2].mask), mask)


def test_a_corrected_box_stays_and_its_silhouette_follows(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    prepare(photos, out)
    (out / "bbox/2.txt").write_text("38 28 80 102\n")
    other = file_digest(out / "mask/1.png")
    for _ in range(2):
        photo = prepare(photos, out).photos[1]
        assert photo.box == (38, 28, 80, 102) and photo.corrected
        assert read_silhouette(photo.mask)[:, 81:].max() == 0
    assert file_digest(out / "mask/1.png") == other


def test_a_corrected_silhouette_stays_and_its_box_follows(photos: Path, tmp_path: Path) -> None:
    out, painted = tmp_path / "o", np.zeros((130, 160), np.uint8)
    prepare(photos, out)
    painted[50:90, 60:100] = 255
    Image.fromarray(painted).save(out / "mask/3.png")
    for _ in range(2):
        photo = prepare(photos, out).photos[2]
        assert photo.box == (60, 50, 100, 90) and photo.corrected and photo.source == "mask"
        assert (read_silhouette(photo.mask) == painted).all()


def test_both_corrected_both_stay(photos: Path, tmp_path: Path) -> None:
    out, painted = tmp_path / "o", np.zeros((130, 160), np.uint8)
    painted[50:90, 60:100] = 255
    prepare(photos, out)
    photo = correct_photo(out, "1", (30, 20, 110, 95), painted).photos[0]
    assert photo.box == (30, 20, 110, 95) and photo.corrected
    assert prepare(photos, out).photos[0] == photo
    assert (read_silhouette(photo.mask) == painted).all()


def test_a_new_photo_is_added_and_one_removed_by_hand_stays_out(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    prepare(photos, out)
    write_photo(photos, "IMG_0.jpg", 4)
    assert [photo.name for photo in prepare(photos, out).photos] == ["1", "2", "3", "4"]
    (out / "data/1.jpg").unlink()
    (out / "bbox/1.txt").unlink()
    (out / "mask/1.png").unlink()
    assert [photo.name for photo in prepare(photos, out).photos] == ["2", "3", "4"]
    assert load_insertset(out)
    with pytest.raises(FileNotFoundError, match="no photo '1'; it has 2, 3, 4"):
        correct_photo(out, "1", (1, 1, 9, 9))
    assert [photo.name for photo in remove_photo(out, "2").photos] == ["3", "4"]
    assert [photo.name for photo in prepare(photos, out).photos] == ["3", "4", "5"]


def test_masks_transparency_and_object_folders_are_taken(photos: Path, tmp_path: Path) -> None:
    mask = np.zeros((130, 160), np.uint8)
    mask[20:90, 10:90] = 255
    Image.fromarray(mask).save(photos / "IMG_1_mask.png")
    rgba = np.dstack([pixels(5), mask])
    Image.fromarray(rgba).save(photos / "see_through.png")
    prepared = prepare(photos, tmp_path / "o")
    assert [photo.source for photo in prepared.photos] == ["mask", "box", "box", "alpha"]
    for photo in (prepared.photos[0], prepared.photos[3]):
        assert (read_silhouette(photo.mask) == mask).all()
    again = prepare(tmp_path / "o", tmp_path / "copy")  # data/ with bbox/ and mask/ beside it
    assert {photo.source for photo in again.photos} == {"mask"}
    assert (read_silhouette(again.photos[0].mask) == mask).all()


def test_the_reference_is_the_chosen_one_and_a_person_s_own_stays(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert prepare(photos, out, reference=photos / "IMG_3.jpg").reference == "3"
    assert prepare(photos, out).reference == "3"
    assert prepare(photos, out, reference="1").reference == "1"
    write_photo(tmp_path / "other", "x.jpg", 6)
    assert prepare(photos, out, reference=tmp_path / "other/x.jpg").reference == ""
    shown = read_rgb(out / "test.jpg")
    assert np.abs(shown.astype(int) - pixels(6)[28:102, 38:122]).mean() < 20
    Image.new("RGB", (30, 30), (1, 2, 3)).save(out / "test.jpg")
    (out / "test_mask.png").unlink()
    own = (out / "test.jpg").read_bytes()
    assert prepare(photos, out).reference == "" and (out / "test.jpg").read_bytes() == own


@pytest.mark.parametrize("made_before", [True, False])
def test_a_reference_that_a_person_adds_is_never_replaced(
    photos: Path, tmp_path: Path, made_before: bool
) -> None:
    out = tmp_path / "o"
    if made_before:
        prepare(photos, out)
        for file in out.glob("test*"):
            file.unlink()
    out.mkdir(exist_ok=True)
    Image.new("RGB", (30, 30), (1, 2, 3)).save(out / "test.webp")
    own = (out / "test.webp").read_bytes()
    for chosen in ("2", photos / "IMG_3.jpg", out / "test.webp"):
        with pytest.raises(ValueError, match=r"would replace .*test\.webp; move that file"):
            prepare(photos, out, reference=chosen)
    for _ in range(2):
        assert prepare(photos, out).reference == "" and (out / "test.webp").read_bytes() == own
    assert [file.name for file in out.glob("test*")] == ["test.webp"]
    (out / "test.webp").unlink()
    assert prepare(photos, out).reference in ("1", "2", "3") and (out / "test.jpg").is_file()


def test_a_person_s_reference_takes_the_place_of_the_program_s(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path)
    Image.new("RGB", (30, 30), (1, 2, 3)).save(tmp_path / "test.webp")
    for _ in range(2):
        assert prepare(photos, tmp_path).reference == ""
        assert [file.name for file in tmp_path.glob("test*")] == ["test.webp"]
    assert load_insertset(tmp_path).reference.name == "test.webp"


def test_the_program_s_own_reference_is_not_cropped_again(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "o")
    before = state(tmp_path / "o")
    with pytest.raises(ValueError, match=r"would replace .*test\.jpg"):
        prepare(photos, tmp_path / "o", reference=tmp_path / "o/test.jpg")
    assert state(tmp_path / "o") == before


def test_same_category_pictures_get_free_names(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    prepare(photos, out)
    (out / "reg_data").mkdir()
    Image.new("RGB", (9, 9)).save(out / "reg_data/q.png")  # a person's, without a box
    for folder, seed in (("one", 7), ("two", 8), ("one", 7)):
        write_photo(tmp_path / folder, "q.jpg", seed)
        prepare(photos, out, category=find_photos(tmp_path / folder))
    found = {file.name: file.read_bytes() for file in (out / "reg_data").iterdir()}
    assert sorted(found) == ["q.png", "q_2.jpg", "q_3.jpg"]
    assert found["q_2.jpg"] == (tmp_path / "one/q.jpg").read_bytes()
    assert found["q_3.jpg"] == (tmp_path / "two/q.jpg").read_bytes()
    with pytest.warns(UserWarning, match="without box"):
        assert len(load_insertset(out).same_category) == 2


def test_a_run_that_was_killed_goes_on_with_its_proposals(photos: Path, tmp_path: Path) -> None:
    class Killed(Segmenter):
        def __call__(self, image: np.ndarray, box: Box) -> np.ndarray:
            if (image == read_rgb(photos / "IMG_3.jpg")).all():
                raise KeyboardInterrupt
            return super().__call__(image, box)

    with pytest.raises(KeyboardInterrupt):
        write_object_folder(tmp_path / "o", find_photos(photos), segmenter=Killed("reds", reds))
    assert not any(photo.corrected for photo in prepare(photos, tmp_path / "o").photos)
    prepare(photos, tmp_path / "other")
    assert state(tmp_path / "o") == state(tmp_path / "other")


def test_a_box_that_does_not_fit_changes_nothing(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    prepare(photos, out)
    before = state(out)
    for box, fault in (((-5, -5, 50, 50), "inside it is 0 0 50 50"), ((9, 9, 9.4, 9.4), "less than a pixel")):
        with pytest.raises(ValueError, match=fault):
            correct_photo(out, "1", box)
    assert state(out) == before


def test_a_box_that_counts_in_the_stored_photo_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "o/bbox").mkdir(parents=True)
    for name, box in (("1", "28 40 100 120"), ("2", "28 40 100 150")):  # the second fits as stored only
        write_photo(tmp_path / "o/data", f"{name}.jpg", int(name), turn=6)
        (tmp_path / f"o/data/{name}.txt").unlink()
        (tmp_path / f"o/bbox/{name}.txt").write_text(box)
    before = state(tmp_path / "o")
    with pytest.raises(ValueError, match=r"bbox/2\.txt: .*outside the picture"):
        write_object_folder(tmp_path / "o", segmenter=REDS)
    assert state(tmp_path / "o") == before


def test_a_photo_without_a_usual_suffix_is_stored_under_that_of_its_format(
    photos: Path, tmp_path: Path
) -> None:
    (photos / "IMG_3.jpg").rename(photos / "IMG_3")
    Image.open(photos / "IMG_2.jpg").save(photos / "IMG_2.part", "PNG")
    (photos / "IMG_2.jpg").unlink()
    prepared = prepare(photos, tmp_path / "o")
    assert [photo.image.name for photo in prepared.photos] == ["1.jpg", "2.png", "3.jpeg"]
    assert len(load_insertset(tmp_path / "o").few_shot) == 3


def test_nothing_is_written_if_a_photo_is_not_readable(photos: Path, tmp_path: Path) -> None:
    (photos / "IMG_9.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"IMG_9\.jpg: an empty file"):
        prepare(photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_box_or_mask_that_would_belong_to_two_photos_is_refused(photos: Path, tmp_path: Path) -> None:
    Image.fromarray(pixels(4)).save(photos / "IMG_1.png")
    with pytest.raises(ValueError, match=r"IMG_1\.jpg and IMG_1\.png go by the same name, 'IMG_1'; rename"):
        prepare(photos, tmp_path / "out")
    (photos / "IMG_1.txt").unlink()
    assert len(prepare(photos, tmp_path / "out").photos) == 4


def test_a_mask_beside_a_photo_may_have_any_suffix(photos: Path, tmp_path: Path) -> None:
    mask = np.zeros((130, 160), np.uint8)
    mask[20:90, 10:90] = 255
    for name in ("IMG_1_mask.bmp", "mask/IMG_2.tif"):
        (photos / name).parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(photos / name)
    prepared = prepare(photos, tmp_path / "o")
    assert [photo.source for photo in prepared.photos] == ["mask", "mask", "box"]
    assert all((read_silhouette(photo.mask) == mask).all() for photo in prepared.photos[:2])


def test_same_category_pictures_and_equal_files(photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "IMG_1.jpg", photos / "copy.jpg")
    write_photo(tmp_path / "others", "q.jpg", 7)
    prepared = prepare(photos, tmp_path / "o", category=find_photos(tmp_path / "others"))
    assert len(prepared.photos) == 3
    [sample] = load_insertset(tmp_path / "o").same_category
    assert sample.boxes == ((38, 28, 122, 102),)


def test_mistakes_are_one_line(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder; expected one with 3-6 photos"):
        find_photos(tmp_path / "none")
    (empty := tmp_path / "it's empty").mkdir()
    with pytest.raises(ValueError, match="no photos"):
        find_photos(empty)
    with pytest.raises(FileNotFoundError) as error:
        read_object_folder(empty)
    command = str(error.value).partition("not prepared; run: ")[2]
    assert shlex.split(command) == ["bash", "prepare.sh", "PHOTOS", "--out", str(empty)]
    (photos / "IMG_1.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"IMG_1.jpg: not a readable picture"):
        prepare(photos, tmp_path / "o")
