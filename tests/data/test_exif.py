"""A broken EXIF block costs itself, not the picture."""

import struct
from pathlib import Path

import pytest
from PIL import Image

from ldm.data.exif import orientation
from ldm.data.picture import read_frame, read_picture


def with_software_as_a_number(path: Path) -> Path:
    """A JPEG whose tag Software is the rational number 2.5, which Pillow reads but cannot write."""
    entry = struct.pack("<HHHII", 1, 305, 5, 1, 26) + bytes(4) + struct.pack("<II", 25, 10)
    Image.new("RGB", (9, 6)).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0" + entry)
    return path


def test_a_tag_of_another_type_costs_the_block(tmp_path: Path) -> None:
    file = with_software_as_a_number(tmp_path / "a.jpg")
    with pytest.warns(UserWarning, match="EXIF block is broken"):
        picture = read_picture(file)
    assert picture.size == (6, 9) and picture.exif is None
    assert read_frame(file) == picture.frame


@pytest.mark.parametrize("error", [AttributeError, TypeError, struct.error, SyntaxError])
def test_an_unreadable_block_means_upright(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def getexif(file: Image.Image) -> Image.Exif:
        raise error("broken")

    monkeypatch.setattr(Image.Image, "getexif", getexif)
    assert orientation(Image.new("L", (4, 4))) == 1
