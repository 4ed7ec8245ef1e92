"""Pictures come back as they were: depth, alpha, profile, EXIF, dpi, text; RGB is as by Pillow."""

import errno
import os
import re
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin

from ldm.config.process import explained
from ldm.data.boxes import Frame
from ldm.data.exif import upright_pixels
from ldm.data.image import colour_levels, colours
from ldm.data.mask_levels import read_silhouette
from ldm.data.picture import (
    GREY,
    Picture,
    read_alpha,
    read_frame,
    read_picture,
    read_rgb,
    read_size,
)
from ldm.data.picture_write import embedded_text, write_picture

PROFILE = b"a colour profile, opaque to us" * 5
TEXT = {"recipe": '{"seed": 321}', "title": "grün und 赤"}


def random_pixels(channels: int, dtype: type, size: tuple[int, int] = (13, 17)) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(channels).integers(0, top + 1, (*size, channels), dtype=dtype)


def photo_exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", orientation
    exif[0x8769] = {0x829A: 0.01, 0x9003: "2024:01:02 03:04:05"}
    exif[0x8825] = {1: "N"}
    return exif


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_everything_survives(tmp_path, channels, dtype):
    pixels = random_pixels(channels, dtype)
    written = Picture(pixels, PROFILE, photo_exif().tobytes(), (300.0, 150.0))
    write_picture(tmp_path / "a.png", written, TEXT)
    read = read_picture(tmp_path / "a.png")
    assert read.pixels.dtype == dtype and np.array_equal(read.pixels, pixels)
    assert read.icc_profile == PROFILE and read.dpi == pytest.approx((300, 150), abs=0.02)
    exif = Image.Exif()
    exif.load(read.exif)
    assert exif[0x010F] == "Maker" and exif.get_ifd(0x8825)[1] == "N"
    assert exif.get_ifd(0x8769) == {0x829A: 0.01, 0x9003: "2024:01:02 03:04:05"}
    assert embedded_text(tmp_path / "a.png") == TEXT


def test_other_programs_read_what_we_write(tmp_path):
    pixels = random_pixels(3, np.uint16, (600, 700))  # several strips
    write_picture(tmp_path / "a.png", Picture(pixels, PROFILE, photo_exif().tobytes(), (72, 72)), TEXT)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[..., ::-1], pixels)
    with Image.open(tmp_path / "a.png") as file:
        assert file.size == (700, 600) and np.asarray(file).shape == pixels.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_agrees_with_pillow(orientation):
    pixels = random_pixels(3, np.uint8, (3, 5))
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = orientation
    assert np.array_equal(upright_pixels(pixels, orientation), np.asarray(ImageOps.exif_transpose(turned)))


@pytest.mark.parametrize(("number", "code"), [(errno.EIO, 3), (errno.EACCES, 2)])
def test_a_disk_that_fails_is_no_broken_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(file)

    def fail(self: Image.Image) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(OSError) as caught:
        read_picture(file)
    line, found = explained(caught.value)
    assert line.startswith(f"error: {file}: {os.strerror(number)}") and found == code


def test_what_a_file_is_instead_of_a_picture(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "page.jpg").write_text("<!doctype html><html>")
    (tmp_path / "none.png").write_bytes(b"")
    Image.new("RGB", (8, 8)).save(tmp_path / "raw.nef", "TIFF")
    bomb = PngImagePlugin.PngInfo()
    bomb.add_text("Comment", "0" * (2 << 20), zip=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "text.png", pnginfo=bomb)
    for name, kind in {
        "folder.png": " is a folder; give a picture",
        "page.jpg": ": a web page saved under this name",
        "none.png": ": an empty file",
        "raw.nef": ": a raw photo, whose TIFF part is a preview",
        "text.png": ": broken picture (Decompressed data too large",
    }.items():
        with pytest.raises(ValueError) as caught:
            read_picture(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}{kind}")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_honoured_and_reset(tmp_path, suffix, orientation):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = 255  # marks the corner
    options = {"lossless": True} if suffix == ".webp" else {"quality": 100} if suffix == ".jpg" else {}
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", exif=photo_exif(orientation).tobytes(), **options)
    read = read_picture(tmp_path / f"a{suffix}")
    assert np.abs(read.pixels.astype(int) - upright_pixels(pixels, orientation)).max() <= 2
    exif = Image.Exif()
    exif.load(read.exif)
    assert exif[0x010F] == "Maker" and 0x0112 not in exif


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_orientation(tmp_path, suffix, orientation):
    pixels = random_pixels(1, np.uint16)
    Image.fromarray(pixels[..., 0]).save(tmp_path / f"a{suffix}", exif=photo_exif(orientation).tobytes())
    assert np.array_equal(read_picture(tmp_path / f"a{suffix}").pixels, upright_pixels(pixels, orientation))


def test_palette_is_expanded(tmp_path):
    plain = Image.fromarray(random_pixels(3, np.uint8)).quantize(16)
    plain.save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, np.asarray(plain.convert("RGB")))
    plain.save(tmp_path / "b.png", transparency=3)
    pixels = read_picture(tmp_path / "b.png").pixels
    assert pixels.shape[2] == 4 and np.array_equal(pixels[..., 3] == 0, np.asarray(plain) == 3)


def test_one_bit_is_grey(tmp_path):
    Image.fromarray(np.eye(9) > 0).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels[..., 0], np.eye(9) * 255)


@pytest.mark.parametrize("suffix", [".webp", ".tif", ".gif", ".png"])
def test_several_frames_are_refused(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), (i * 90, 200, 0)) for i in range(3)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"animated or of several pages \(3\)"):
        read_picture(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".webp", ".tif", ".gif", ".png"])
def test_the_first_of_several_frames_is_taken_with_a_warning_only(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), (i * 90, 200, 0)) for i in range(3)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="several pages, the first of 3 is taken"):
        assert read_rgb(tmp_path / f"a{suffix}").shape == (8, 8, 3)
    with pytest.warns(UserWarning, match="the first of 3 is taken"):
        assert read_frame(tmp_path / f"a{suffix}") == Frame(8, 8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_stored_frame_is_known(tmp_path, suffix, orientation):
    file = tmp_path / f"a{suffix}"
    Image.new("RGB", (32, 16)).save(file, exif=photo_exif(orientation).tobytes())
    assert read_frame(file) == read_picture(file).frame == Frame(32, 16, orientation)
    assert read_picture(file).size == Frame(32, 16, orientation).shown[::-1]
    assert read_size(file) == Frame(32, 16, orientation).shown


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_read_upright(tmp_path, orientation):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:32, :32] = 255
    Image.fromarray(pixels).save(tmp_path / "a.heic", exif=photo_exif(orientation).tobytes(), quality=95)
    read = read_rgb(tmp_path / "a.heic")
    assert read.shape[:2] == upright_pixels(pixels, orientation).shape[:2]
    assert np.abs(read.astype(int) - upright_pixels(pixels, orientation)).mean() < 4
    assert read_frame(tmp_path / "a.heic").shown == read.shape[1::-1]


def test_heic_without_the_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(ValueError, match=r"a\.jpg: HEIC needs the extra `heic`: pip install"):
        read_picture(tmp_path / "a.jpg")


def test_errors_of_bad_files_name_the_fault(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_picture(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match="not a readable picture"):
        read_picture(tmp_path / "text.png")
    Image.new("CMYK", (8, 8)).save(tmp_path / "cmyk.jpg")
    with pytest.raises(ValueError, match="CMYK"):
        read_picture(tmp_path / "cmyk.jpg")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_truncated_file_is_broken(tmp_path, suffix, dtype):
    whole, cut = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    pixels = random_pixels(3, dtype, (64, 64))
    if suffix in (".png", ".tif"):
        cv2.imwrite(str(whole), pixels)
    else:
        Image.fromarray((pixels & 255).astype(np.uint8)).save(whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ValueError, match=re.escape(cut.name)):
        read_picture(cut)


def test_other_formats_are_refused(tmp_path):
    for name in ("a.jpg", "a.tif", "a"):
        with pytest.raises(ValueError, match=r"pictures are written as \.png"):
            write_picture(tmp_path / name, Picture(random_pixels(3, np.uint8)))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(AttributeError):
        write_picture(path, Picture(random_pixels(3, np.uint8)), {"key": 3.5})  # type: ignore[dict-item]
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_level_survives_floats(channels, dtype):
    top = np.iinfo(dtype).max
    pixels = np.arange(top + 1, dtype=dtype).reshape(-1, 16, 1).repeat(channels, 2)
    image = colours(pixels)
    assert image.shape[0] == 3 and image.min() == -1 and image.max() == 1
    assert np.array_equal(colour_levels(image, pixels), pixels[..., : 1 if channels <= 2 else 3])


def test_grey_gets_the_luma():
    green = torch.tensor([-1.0, 1.0, -1.0]).view(3, 1, 1)
    assert colour_levels(green, np.zeros((1, 1, 1), np.uint8)).item() == round(0.587 * 255)


def test_transparent_pixels_become_grey(tmp_path):
    pixels = np.full((2, 2, 4), 200, np.uint8)
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png")[:, 0, 0].tolist() == [GREY, 200]


def test_rgb_is_upright(tmp_path):
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
    if suffix == ".png":
        write_picture(tmp_path / "a.png", Picture(levels))
    else:
        cv2.imwrite(str(tmp_path / "a.tif"), levels if channels != 2 else levels[..., [0, 0, 0, 1]])
    assert (read_rgb(tmp_path / f"a{suffix}") == levels[..., :1] // 257).all()


@pytest.mark.parametrize("orientation", [1, 6])
def test_16_bit_grey_is_turned_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    levels = np.random.default_rng(0).integers(0, 65536, (7, 9), dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png", exif=exif.tobytes())
    expected = upright_pixels(np.round(levels / 257).astype(np.uint8), orientation)
    assert (read_rgb(tmp_path / "a.png")[..., 0] == expected).all()


def test_what_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such picture file"):
        read_rgb(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    for name, reason in {
        "text": "not a readable",
        "float": "neither 8 nor 16 bits",
        "cut": "broken picture",
    }.items():
        [file] = tmp_path.glob(f"{name}.*")
        for read in (read_rgb, read_alpha, read_silhouette):
            with pytest.raises(ValueError, match=rf"{file.name}: {reason}[^\n]*; [^\n]*$"):
                read(file)


def by_pillow(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """RGB over mid-grey and alpha of a file, as Pillow converts it: the oracle of 8-bit files."""
    with path.open("rb") as raw, Image.open(raw) as file:
        rgba = ImageOps.exif_transpose(file).convert("RGBA")
    ground = Image.new("RGBA", rgba.size, (GREY, GREY, GREY, 255))
    return np.array(Image.alpha_composite(ground, rgba).convert("RGB")), np.array(rgba)[..., 3]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "CMYK", "YCbCr"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_8_bit_files_are_converted_as_by_pillow(tmp_path, mode, suffix):
    """Whatever the colour mode, strip by strip (more than one here) or not."""
    picture = Image.fromarray(random_pixels(4, np.uint8, (300, 20)), "RGBA").convert(mode)
    try:
        picture.save(tmp_path / f"a{suffix}", exif=photo_exif(6).tobytes())
        rgb, alpha = by_pillow(tmp_path / f"a{suffix}")
    except OSError:
        pytest.skip(f"Pillow cannot write and read {mode} as {suffix}")
    assert np.array_equal(read_rgb(tmp_path / f"a{suffix}"), rgb)
    read = read_alpha(tmp_path / f"a{suffix}")
    assert alpha.min() == 255 if read is None else np.array_equal(read, alpha)


def test_a_palette_with_transparency_is_converted_as_by_pillow(tmp_path):
    plain = Image.fromarray(random_pixels(3, np.uint8, (60, 50))).quantize(4)
    plain.save(tmp_path / "a.png", transparency=3)
    rgb, alpha = by_pillow(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png"), rgb)
    assert np.array_equal(read_alpha(tmp_path / "a.png"), alpha)


def test_16_bits_are_rounded(tmp_path):
    levels = random_pixels(4, np.uint16)
    write_picture(tmp_path / "a.png", Picture(levels))
    assert np.array_equal(read_alpha(tmp_path / "a.png"), np.round(levels[..., 3] / 257))
    write_picture(tmp_path / "b.png", Picture(levels[..., :3]))
    assert np.array_equal(read_rgb(tmp_path / "b.png"), np.round(levels[..., :3] / 257))


def test_a_little_transparency_is_no_silhouette(tmp_path):
    pixels = np.full((100, 100, 4), 255, np.uint8)
    pixels[0, :50, 3] = 0  # half a percent
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_alpha(tmp_path / "a.png") is None
    pixels[:2, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_alpha(tmp_path / "a.png"), pixels[..., 3])
    assert np.array_equal(read_silhouette(tmp_path / "a.png"), pixels[..., 3])


def test_a_tiff_whose_second_page_has_no_size_is_broken(tmp_path: Path) -> None:
    page, path = Image.new("L", (8, 8)), tmp_path / "a.tif"
    page.save(path, save_all=True, append_images=[page])
    data = bytearray(path.read_bytes())
    [first] = struct.unpack_from("<I", data, 4)
    [entries] = struct.unpack_from("<H", data, first)
    [second] = struct.unpack_from("<I", data, first + 2 + 12 * entries)
    struct.pack_into("<H", data, second + 2, 999)  # its first entry, the width
    path.write_bytes(data)
    with pytest.raises(ValueError, match="broken picture"):
        read_picture(path)


def test_16_bits_with_one_transparent_colour_are_refused(tmp_path: Path) -> None:
    """The colour would become opaque."""
    write_picture(tmp_path / "a.png", Picture(random_pixels(1, np.uint16)))
    png = (tmp_path / "a.png").read_bytes()
    chunk = b"tRNS" + bytes(2)
    chunk = struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(png[:33] + chunk + png[33:])
    with pytest.raises(ValueError, match=r"a\.png: 16 bits, and one colour is transparent; save it with"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("dots", [(0, 0), (1, 0), (2**32 - 1, 1)])
def test_a_resolution_that_cannot_be_written_is_dropped(tmp_path, dots):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.tif", dpi=(72, 72))
    content = bytearray((tmp_path / "a.tif").read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", content, start)[0], 12):
        tag, _, _, place = struct.unpack_from("<HHII", content, entry)
        if tag in (282, 283):
            struct.pack_into("<II", content, place, *dots)
    (tmp_path / "a.tif").write_bytes(content)
    picture = read_picture(tmp_path / "a.tif")
    assert picture.dpi is None
    write_picture(tmp_path / "a.png", picture)
