"""16-bit pictures under any name; of other depths none is read."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.data.picture import read_picture, read_rgb
from ldm.data.picture_decode import one_line_errors


def test_a_16_bit_picture_may_have_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    pixels = np.arange(192, dtype=np.uint16).reshape(12, 16) * 300
    file = tmp_path / os.fsdecode(b"caf\xe9.png")
    Image.fromarray(pixels).save(file)
    assert np.array_equal(read_picture(file).pixels[..., 0], pixels)


def write_12_bit_tiff(path: Path) -> None:
    """A grey TIFF of 2 x 1 pixels, 12 bits each, as microscopes write them."""
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 3}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    pixels = b"\x12\x34\x56\0"
    path.write_bytes(
        b"II*\0" + struct.pack("<I", 12) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)
    )


@pytest.mark.parametrize("read", [read_rgb, read_picture])
def test_12_bits_are_refused(tmp_path: Path, read) -> None:
    write_12_bit_tiff(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif: neither 8 nor 16 bits a channel.*; save it"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("error", [AttributeError, TypeError, struct.error])
def test_what_a_reader_raises_is_one_line(tmp_path: Path, error: type[Exception]) -> None:
    file = tmp_path / "a.tif"
    file.touch()
    with (
        pytest.raises(ValueError, match=r"a\.tif: broken picture \(odd\); save it again"),
        one_line_errors(file),
    ):
        raise error("odd")
