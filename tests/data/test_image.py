"""uint8 <=> float is exact, and every kind of file becomes upright RGB."""

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.exif import upright
from ldm.data.image import GREY, from_bytes, read_rgb, resize, to_bytes, to_image, to_pixels
from ldm.data.picture import Picture
from ldm.data.picture_write import write_picture


def test_round_trip_changes_no_value():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    image = to_image(pixels)
    assert image.shape == (3, 16, 16) and image.min() == -1 and image.max() == 1
    assert np.array_equal(to_pixels(image), pixels)


def test_pixels_are_rounded_and_clamped():
    image = torch.tensor([-3.0, 0.6 / 127.5 - 1, 1.7]).view(3, 1, 1)
    assert to_pixels(image).ravel().tolist() == [0, 1, 255]


def test_transparent_pixels_become_grey(tmp_path):
    pixels = np.full((2, 2, 4), 200, np.uint8)
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png")[:, 0, 0].tolist() == [GREY, 200]


def test_exif_orientation_is_honoured(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read_rgb(tmp_path / "a.jpg").shape == (40, 20, 3)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_are_scaled_not_clipped(tmp_path, channels, suffix):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16, 1).repeat(channels, 2) * 257
    if channels in (2, 4):
        levels[..., -1] = 65535
    write_picture(tmp_path / f"a{suffix}", Picture(levels))
    assert (read_rgb(tmp_path / f"a{suffix}") == levels[..., :1] // 257).all()


@pytest.mark.parametrize("orientation", [1, 6])
def test_16_bit_grey_is_turned_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    levels = np.random.default_rng(0).integers(0, 65536, (7, 9), dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png", exif=exif.tobytes())
    expected = upright(np.round(levels / 257).astype(np.uint8), orientation)
    assert (read_rgb(tmp_path / "a.png")[..., 0] == expected).all()


def test_what_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such picture file"):
        read_rgb(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    for name in ("text.png", "float.tif", "cut.png"):
        with pytest.raises(ValueError, match=rf"{name}: not readable \(.*\); give PNG"):
            read_rgb(tmp_path / name)


@pytest.mark.parametrize("size", [8, (5, 9), 40])
def test_resize_keeps_the_value_range(size):
    image = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0)).sign()
    out = resize(image, size)
    assert out.shape[-2:] == ((size, size) if isinstance(size, int) else size)
    assert out.min() >= -1 and out.max() <= 1


def test_resize_to_the_same_size_is_the_same_image():
    image = torch.rand(1, 3, 7, 9)
    assert resize(image, (7, 9)) is image


def test_cut_outs_as_bytes_keep_alpha_and_have_no_veil():
    levels = torch.arange(256).expand(4, 1, 256).to(torch.uint8).clone()
    image = from_bytes(levels)
    assert torch.allclose(image[3], torch.arange(256) / 255.0) and (image[:, 0, 0] == 0).all()
    assert torch.equal(to_bytes(image)[:, :, 1:], levels[:, :, 1:]) and to_bytes(image)[3, 0, 0] == 0
    assert torch.equal(to_bytes(from_bytes(levels[:3])), levels[:3])
