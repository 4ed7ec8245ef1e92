"""Colours mean what a viewer shows, whatever profile or chunk states them; littleCMS is the oracle."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from ldm.batch.work_item import MaskedBackground
from ldm.data.colour_space import NCLX, MatrixSpace, colour_space, decoded, encoded, profile_fault
from ldm.data.icc_profile import SRGB_CURVE, make_icc
from ldm.data.image import colour_levels, colours
from ldm.data.picture import Picture, read_picture, read_rgb, srgb_pixels
from ldm.data.picture_write import write_picture
from tests.fixtures.profiles import (
    DISPLAY_P3,
    GREY,
    INKS,
    PROFILES,
    cmyk_of_inks,
    in_profile,
    shown,
)

OTHERS = [name for name in PROFILES if name != "srgb"]
P3_CHUNK, HDR_CHUNK = bytes((12, 13, 0, 1)), bytes((9, 16, 0, 1))


def muted(size: tuple[int, int] = (40, 50)) -> np.ndarray:
    """Colours that 8 bits of every profile here hold well, uint8 [H,W,3]."""
    rng = np.random.default_rng(0)
    return (rng.integers(90, 190, (*size, 1)) + rng.integers(-40, 41, (*size, 3))).astype(np.uint8)


def with_chunk(path: Path, name: bytes, content: bytes) -> Path:
    """A chunk added behind a PNG's header."""
    png = path.read_bytes()
    body = name + content
    chunk = struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(png[:33] + chunk + png[33:])
    return path


@pytest.mark.parametrize("name", OTHERS)
def test_a_profile_is_converted_as_by_littlecms(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    space = colour_space(PROFILES[name], 3)
    assert space is not None and isinstance(space, MatrixSpace) == (name != "tables")
    ours = np.rint(space.to_srgb(pixels / 255).clip(0, 1) * 255)
    assert np.abs(ours - shown(pixels, PROFILES[name])).max() <= 1
    back = np.rint(space.from_srgb(muted() / 255) * 255)
    assert np.abs(back - in_profile(muted(), PROFILES[name])).max() <= 1


def test_colours_beyond_srgb_are_kept() -> None:
    space = colour_space(PROFILES["p3"], 3)
    assert space is not None
    red = space.to_srgb(np.array([1.0, 0.0, 0.0]))
    assert red == pytest.approx([1.0930, -0.2267, -0.1501], abs=1e-3)  # as in CSS Color 4
    assert decoded(encoded(np.array([-0.5, 0.001, 1.5]))) == pytest.approx([-0.5, 0.001, 1.5])


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "tables"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_stored_levels_survive_the_way_to_srgb_and_back(name: str, dtype: type) -> None:
    space, top = colour_space(PROFILES[name], 3), np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(top // 16, top + 1, (40, 50, 3), dtype=dtype)
    again = colour_levels(colours(pixels, space), pixels, space)
    assert np.abs(again.astype(int) - pixels).max() <= (0 if dtype == np.uint8 else 1)


def test_srgb_by_any_name_is_left_alone() -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert colour_space(own, 3) is colour_space(PROFILES["srgb"], 3) is colour_space(None, 3) is None
    assert colour_space(make_icc("sRGB grey", SRGB_CURVE), 1) is None


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_reference_looks_the_same_in_every_profile(
    tmp_path: Path, name: str, deep: bool, alpha: bool
) -> None:
    stored = in_profile(muted(), PROFILES[name])
    pixels = np.dstack([stored, np.full(stored.shape[:2], 255, np.uint8)]) if alpha else stored
    pixels = pixels.astype(np.uint16) * 257 if deep else pixels
    write_picture(tmp_path / "a.png", Picture(pixels, PROFILES[name]))
    assert np.abs(read_rgb(tmp_path / "a.png").astype(int) - muted()).max() <= 3


def test_grey_pictures_have_profiles_of_their_own(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "a.png", icc_profile=GREY)
    assert np.abs(read_rgb(tmp_path / "a.png").astype(int) - shown(levels, GREY)).max() <= 1
    picture = read_picture(tmp_path / "a.png")
    image = colours(picture.pixels, picture.space)
    assert np.array_equal(colour_levels(image, picture.pixels, picture.space)[..., 0], levels)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_goes_through_its_profile(tmp_path: Path, suffix: str) -> None:
    inks = np.zeros((2, 2, 4), np.uint8)
    inks[np.arange(4) // 2, np.arange(4) % 2, np.arange(4)] = 255
    inks = inks.repeat(16, 0).repeat(16, 1)
    options = {"quality": 100} if suffix == ".jpg" else {}
    Image.fromarray(inks, "CMYK").save(tmp_path / f"a{suffix}", icc_profile=cmyk_of_inks(), **options)
    found = read_rgb(tmp_path / f"a{suffix}")[8::16, 8::16].reshape(4, 3)
    black = found[3].astype(int)  # black point compensation makes the darkest black
    assert np.abs(found[:3] - INKS[:3] * 255).max() <= 8 and black.max() <= 40
    Image.fromarray(inks, "CMYK").save(tmp_path / f"b{suffix}", **options)
    with pytest.warns(UserWarning, match=rf"b\{suffix}: CMYK without a colour profile"):
        assert np.abs(read_rgb(tmp_path / f"b{suffix}")[8, 8].astype(int) - (0, 255, 255)).max() <= 4


@pytest.mark.parametrize(
    ("profile", "fault"),
    [
        (b"no profile at all" * 20, "no ICC header"),
        (PROFILES["p3"][:200], "cut off"),
        (PROFILES["p3"].replace(b"rTRC", b"xTRC"), "unusable"),
        (GREY, "is of GRAY, its pixels are not"),
        (cmyk_of_inks(), "is of CMYK, its pixels are not"),
    ],
)
def test_a_broken_profile_is_named_and_kept(tmp_path: Path, profile: bytes, fault: str) -> None:
    Image.fromarray(muted()).save(tmp_path / "a.png", icc_profile=profile)
    with pytest.warns(UserWarning, match=rf"a\.png: .*{fault}.*taken as sRGB"):
        assert np.array_equal(read_rgb(tmp_path / "a.png"), muted())
    with pytest.warns(UserWarning, match=rf"a\.png: .*{fault}.*taken as sRGB"):
        picture = MaskedBackground(tmp_path / "a.png", box=(5, 5, 20, 20)).read()[0]
    assert picture.space is None and picture.icc_profile == profile
    assert np.array_equal(srgb_pixels(picture), muted()) and profile_fault(profile, 3)


def test_damaged_profiles_never_raise() -> None:
    """Bytes exchanged anywhere: a profile is usable, or it has a fault."""
    rng = np.random.default_rng(0)
    for name in ("p3", "tables"):
        for _ in range(100):
            bad = bytearray(PROFILES[name])
            for place in rng.integers(0, min(len(bad), 600), 4):
                bad[place] = rng.integers(0, 256)
            space = colour_space(bytes(bad), 3)
            assert space is None or np.isfinite(space.to_srgb(muted() / 255)).all()


def test_gamma_and_primaries_of_a_png_are_honoured(tmp_path: Path) -> None:
    linear = in_profile(muted(), PROFILES["linear"])
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100_000))
    Image.fromarray(linear).save(tmp_path / "a.png", pnginfo=info)
    assert np.abs(read_rgb(tmp_path / "a.png").astype(int) - shown(linear, PROFILES["linear"])).max() <= 1
    points = [v for x, y in ((0.3127, 0.3290), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)) for v in (x, y)]
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", round(100_000 / 2.19921875)))
    info.add(b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in points)))
    adobe = in_profile(muted(), PROFILES["adobe"])
    Image.fromarray(adobe).save(tmp_path / "b.png", pnginfo=info)
    assert np.abs(read_rgb(tmp_path / "b.png").astype(int) - muted()).max() <= 3
    picture = read_picture(tmp_path / "b.png")
    write_picture(tmp_path / "c.png", picture)  # a result states the same colours, as a profile
    assert np.abs(read_rgb(tmp_path / "c.png").astype(int) - muted()).max() <= 3


def test_chunks_that_say_srgb_change_nothing(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 45455))
    info.add(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
    Image.fromarray(muted()).save(tmp_path / "a.png", pnginfo=info)
    info.add(b"sRGB", b"\0")
    Image.fromarray(muted()).save(tmp_path / "b.png", pnginfo=info)
    Image.fromarray(muted()).save(tmp_path / "c.png")
    with_chunk(tmp_path / "c.png", b"cICP", bytes((1, 13, 0, 1)))
    Image.fromarray(muted()).save(tmp_path / "d.png")
    with_chunk(tmp_path / "d.png", b"cICP", bytes((2, 2, 0, 1)))
    for name in "abcd":
        picture = read_picture(tmp_path / f"{name}.png")
        assert picture.icc_profile is None and np.array_equal(picture.pixels, muted())


def test_cicp_is_honoured_or_refused(tmp_path: Path) -> None:
    Image.fromarray(in_profile(muted(), PROFILES["p3"])).save(tmp_path / "a.png")
    with_chunk(tmp_path / "a.png", b"cICP", P3_CHUNK)
    assert np.abs(read_rgb(tmp_path / "a.png").astype(int) - muted()).max() <= 3
    assert read_picture(tmp_path / "a.png").icc_profile == make_icc(
        "Display P3, curve 13", SRGB_CURVE, DISPLAY_P3
    )
    for name, content, message in (
        ("b", HDR_CHUNK, r"high dynamic range \(PQ\)"),
        ("c", b"\x63\1\0\1", "unknown"),
        ("d", bytes((12, 13, 0, 0)), "narrow range"),
    ):
        Image.fromarray(muted()).save(tmp_path / f"{name}.png")
        with_chunk(tmp_path / f"{name}.png", b"cICP", content)
        with pytest.raises(ValueError, match=rf"{name}\.png: .*{message}.*; save it [^\n]*$"):
            read_rgb(tmp_path / f"{name}.png")


def test_high_dynamic_range_of_unstated_primaries_is_refused(tmp_path: Path) -> None:
    Image.fromarray(muted()).save(tmp_path / "a.png")
    with_chunk(tmp_path / "a.png", b"cICP", bytes((2, 18, 0, 1)))
    with pytest.raises(ValueError, match=r"a\.png: of high dynamic range \(HLG\)"):
        read_rgb(tmp_path / "a.png")


def test_of_several_statements_that_of_the_png_standard_counts(tmp_path: Path) -> None:
    p3, path = in_profile(muted(), PROFILES["p3"]), tmp_path / "a.png"
    Image.fromarray(p3).save(path, icc_profile=PROFILES["adobe"])
    with_chunk(with_chunk(path, b"gAMA", struct.pack(">I", 100_000)), b"cICP", P3_CHUNK)
    assert np.abs(read_rgb(path).astype(int) - muted()).max() <= 3
    Image.fromarray(p3).save(path, icc_profile=PROFILES["p3"])
    with_chunk(with_chunk(path, b"gAMA", struct.pack(">I", 100_000)), b"sRGB", b"\0")
    assert np.abs(read_rgb(path).astype(int) - muted()).max() <= 3
    Image.fromarray(muted()).save(path)
    with_chunk(with_chunk(path, b"gAMA", struct.pack(">I", 100_000)), b"sRGB", b"\0")
    assert np.array_equal(read_rgb(path), muted())


@pytest.mark.parametrize("chunk", [b"iCCP", b"gAMA"])
@pytest.mark.parametrize("deep", [False, True])
def test_grey_with_alpha_follows_what_is_stated(tmp_path: Path, chunk: bytes, deep: bool) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = np.dstack([levels, np.full_like(levels, 255)])
    pixels = pixels.astype(np.uint16) * 257 if deep else pixels
    write_picture(tmp_path / "a.png", Picture(pixels, GREY if chunk == b"iCCP" else None))
    if chunk == b"gAMA":
        with_chunk(tmp_path / "a.png", chunk, struct.pack(">I", round(100_000 / 1.8)))
    picture = read_picture(tmp_path / "a.png")
    assert picture.colour_fault == "" and np.array_equal(picture.pixels, pixels)
    assert np.abs(srgb_pixels(picture).astype(int) - shown(levels, GREY)).max() <= 1


def test_a_palette_follows_its_profile(tmp_path: Path) -> None:
    palette = Image.fromarray(in_profile(muted(), PROFILES["p3"])).quantize(64)
    for name, options in (("a", {}), ("b", {"transparency": 5})):
        palette.save(tmp_path / f"{name}.png", icc_profile=PROFILES["p3"], **options)
        opaque = np.asarray(palette) != 5 if options else np.ones(palette.size[::-1], bool)
        expected = shown(np.asarray(palette.convert("RGB")), PROFILES["p3"])
        found = read_rgb(tmp_path / f"{name}.png")
        assert np.abs(found.astype(int) - expected)[opaque].max() <= 1
        assert (found[~opaque] == 128).all()


def test_a_profile_that_cannot_be_put_together_is_named(tmp_path: Path) -> None:
    """Pillow is silent about both."""
    Image.fromarray(muted()).save(tmp_path / "a.png")
    with_chunk(tmp_path / "a.png", b"iCCP", b"x\0\0garbage")
    large = PROFILES["p3"] + bytes(70_000)  # of two parts
    Image.fromarray(muted()).save(tmp_path / "a.jpg", quality=100, icc_profile=large)
    jpeg, name = (tmp_path / "a.jpg").read_bytes(), b"ICC_PROFILE\0"
    second = jpeg.index(name, jpeg.index(name) + 1) - 4
    [size] = struct.unpack_from(">H", jpeg, second + 2)
    (tmp_path / "a.jpg").write_bytes(jpeg[:second] + jpeg[second + 2 + size :])
    for file in ("a.png", "a.jpg"):
        with pytest.warns(
            UserWarning, match=rf"{file}: its colour profile is unusable \(it is damaged\); .* as sRGB"
        ):
            read_rgb(tmp_path / file)
        again = tmp_path / f"again_{file}.png"
        write_picture(again, read_picture(tmp_path / file))
        assert read_picture(again).icc_profile is None


def test_a_profile_in_a_bmp_is_honoured(tmp_path: Path) -> None:
    height, width = 40, 52  # rows of a multiple of 4 bytes
    stored, profile = in_profile(muted((height, width)), PROFILES["p3"]), PROFILES["p3"]
    rows = stored[::-1, :, ::-1].tobytes()
    sizes = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 24, 0, len(rows), 0, 0, 0, 0)
    header = sizes + bytes(16) + b"DEBM" + bytes(48)
    header += struct.pack("<IIII", 4, 124 + len(rows), len(profile), 0)
    start = 14 + len(header)
    (tmp_path / "a.bmp").write_bytes(
        b"BM" + struct.pack("<IHHI", start + len(rows) + len(profile), 0, 0, start) + header + rows + profile
    )
    assert np.abs(read_rgb(tmp_path / "a.bmp").astype(int) - muted((height, width))).max() <= 3
    Image.fromarray(stored).save(tmp_path / "b.bmp")
    assert np.array_equal(read_rgb(tmp_path / "b.bmp"), stored)


def test_code_points_of_avif_are_honoured_or_refused(tmp_path: Path) -> None:
    stored = in_profile(muted(), PROFILES["p3"])
    Image.fromarray(stored).save(tmp_path / "a.avif", quality=100, subsampling="4:4:4")
    avif = (tmp_path / "a.avif").read_bytes()
    place = avif.index(NCLX) + len(NCLX)

    def stating(primaries: int, transfer: int) -> Path:
        codes = struct.pack(">HH", primaries, transfer)
        (tmp_path / "b.avif").write_bytes(avif[:place] + codes + avif[place + 4 :])
        return tmp_path / "b.avif"

    plain = read_rgb(tmp_path / "a.avif")
    assert np.abs(read_rgb(stating(12, 13)).astype(int) - shown(plain, PROFILES["p3"])).max() <= 1
    for codes in ((1, 13), (2, 2), (2, 13)):
        assert np.array_equal(read_rgb(stating(*codes)), plain)
    with pytest.raises(ValueError, match=r"b\.avif: of high dynamic range \(PQ\); save it [^\n]*$"):
        read_rgb(stating(9, 16))
    with pytest.raises(ValueError, match=r"b\.avif: it states unknown colours \(99, 13\); save it as sRGB$"):
        read_rgb(stating(99, 13))


def test_lab_is_converted(tmp_path: Path) -> None:
    make, convert = ImageCms.createProfile, ImageCms.applyTransform
    lab = convert(Image.fromarray(muted()), ImageCms.buildTransform(make("sRGB"), make("LAB"), "RGB", "LAB"))
    assert lab is not None
    lab.save(tmp_path / "a.tif")
    assert np.abs(read_rgb(tmp_path / "a.tif").astype(int) - muted()).max() <= 6  # of 8 bits of Lab
    with pytest.raises(ValueError, match=r"a\.tif: colour mode LAB is none of .*; convert it to RGB$"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("chunk", "content", "fault"),
    [
        (b"cHRM", bytes(8), "its cHRM chunk is damaged; save it again"),
        (b"cICP", bytes(3), "its cICP chunk is damaged; save it again"),
        (b"iCCP", b"x\0\0" + zlib.compress(bytes(2_000_000)), "a text in it has over 1 MB, save it without"),
    ],
)
def test_damaged_chunks_are_one_line(tmp_path: Path, chunk: bytes, content: bytes, fault: str) -> None:
    Image.fromarray(muted()).save(tmp_path / "a.png")
    with_chunk(tmp_path / "a.png", chunk, content)
    with pytest.raises(ValueError, match=rf"a\.png: [^\n]*{fault}$"):
        read_rgb(tmp_path / "a.png")


def test_adobe_rgb_without_a_profile_is_named(tmp_path: Path) -> None:
    for name, tags in (("a", {0xA001: 2}), ("b", {0xA001: 65535, 0xA005: {1: "R03"}}), ("c", {0xA001: 1})):
        exif = Image.Exif()
        exif[0x8769] = tags
        Image.fromarray(muted()).save(tmp_path / f"{name}.jpg", exif=exif.tobytes())
    for name in "ab":
        with pytest.warns(UserWarning, match=rf"{name}\.jpg: its EXIF block says Adobe RGB.*taken as sRGB"):
            read_rgb(tmp_path / f"{name}.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_rgb(tmp_path / "c.jpg")
