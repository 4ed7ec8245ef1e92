"""The promise: pixels outside the mask are as they were, file to file, whatever picture, mask and mode."""

from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ldm.batch.runner import plan_request
from ldm.batch.work_item import MaskedBackground, WorkItem
from ldm.compositing.composite_fill import CompositeObject, CompositeSettings
from ldm.data.picture import Picture, read_picture
from ldm.data.picture_write import write_picture
from ldm.insertion import region as region
from ldm.insertion.blend import BLENDS, blend_named
from ldm.insertion.crop_paste import difference_outside
from ldm.insertion.inpaint import Sampling
from ldm.insertion.insert import InsertOptions, insert
from ldm.insertion.object_source import ObjectSource
from ldm.insertion.region import InsertableObject, ObjectFill
from ldm.insertion.roi import CropContext
from ldm.models.cross_attention import Contexts
from ldm.tiling.second_pass import TiledSecondPass
from tests.fixtures.noisy import Noisy
from tests.fixtures.profiles import GREY, PROFILES, in_profile, shown

PROFILE = b"a colour profile, opaque to us" * 5


class Muted(Noisy):
    """Paints no colours that 8 bits of a wide profile hold badly."""

    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents) * 0.2


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """Boxes, specks and noise, also at borders and in thin pictures."""
    size = draw(st.integers(2, 60)), draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    hole = np.zeros(size, bool)
    for _ in range(draw(st.integers(1, 3))):
        y, x = (int(rng.integers(0, side)) for side in size)
        part = hole[y : y + int(rng.integers(1, 30)), x : x + int(rng.integers(1, 30))]
        part |= rng.random(part.shape) < draw(st.sampled_from([0.5, 1.0]))
        hole[y, x] = True
    return hole


@given(
    mask=masks(),
    mode=st.sampled_from(sorted(BLENDS)),
    channels=st.sampled_from([1, 2, 3, 4]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    second_pass=st.sampled_from([0.0, 0.5]),
    factor=st.sampled_from([1.0, 2.0, 3.5]),
    reach=st.sampled_from([-1.0, 5.0, float("inf")]),
    most=st.sampled_from([2048, 24]),
    shown=st.booleans(),
    detail_transfer=st.sampled_from([0.0, 16.0]),
    keep_scene=st.booleans(),
    profile=st.sampled_from([PROFILE, *PROFILES]),
)
@settings(max_examples=80, deadline=None)
def test_pixels_outside_the_mask_are_identical(
    mask: np.ndarray,
    mode: str,
    channels: int,
    dtype: type,
    second_pass: float,
    factor: float,
    reach: float,
    most: int,
    shown: bool,
    detail_transfer: float,
    keep_scene: bool,
    profile: bytes | str,
) -> None:
    top, context = np.iinfo(dtype).max, torch.zeros(1, 1, 4)
    stored = np.random.default_rng(1).integers(0, top + 1, (*mask.shape, channels), dtype=dtype)
    icc = PROFILE if isinstance(profile, bytes) else PROFILES[profile] if stored.shape[2] > 2 else GREY
    background, model = Picture(stored, icc, None, (72.0, 72.0)), Noisy()
    item = WorkItem(MaskedBackground(Path()), ObjectSource(), (1, 2))
    request = plan_request(item, mask, CropContext(model.architecture.image_size, factor))
    options = InsertOptions(
        Sampling("ddim", 2, 1.0),
        blend_named(mode, reach=reach),
        second_pass=TiledSecondPass(second_pass) if second_pass else None,
    )
    composited = CompositeSettings(detail_transfer * (not second_pass), keep_scene)
    fill = CompositeObject(torch.rand(1, 4, 9, 9), composited) if shown else ObjectFill()
    with patch.object(region, "MOST", most):  # larger regions are worked on at that size
        one = InsertableObject(Contexts(context, context), fill)
        [results] = insert(model, background, [request], [one], options)  # type: ignore[arg-type]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "r.png"
        for result in results:
            write_picture(file, result.picture)
            read = read_picture(file)
            assert read.pixels.dtype == dtype and read.icc_profile == icc and read.dpi is not None
            assert difference_outside(read.pixels, background.pixels, mask) == 0
            if channels in (2, 4):
                assert np.array_equal(read.pixels[..., -1], background.pixels[..., -1])
    if mode == "paste" and mask.sum() > 2 and not shown:
        assert not np.array_equal(results[0].picture.pixels[mask], background.pixels[mask])


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "srgb"])
@pytest.mark.parametrize("deep", [False, True])
def test_an_object_looks_the_same_in_a_background_of_any_profile(name: str, deep: bool) -> None:
    """Shown by littleCMS, the insertion into the same scene in another profile is within 3 levels of sRGB."""
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(110, 150, (6, 6, 3)), np.ones((10, 10, 1), int)).astype(np.uint8)
    mask = np.zeros((60, 60), bool)
    mask[12:45, 15:50] = True
    picture = torch.tensor([0.4, -0.1, -0.05, 1.0])[None, :, None, None].expand(1, 4, 9, 9)
    model, context = Muted(), torch.zeros(1, 1, 4)
    item = WorkItem(MaskedBackground(Path()), ObjectSource(), (1,))
    request = plan_request(item, mask, CropContext(model.architecture.image_size))
    settings = CompositeSettings(16.0, keep_scene=True)
    one = InsertableObject(Contexts(context, context), CompositeObject(picture, settings))
    seen = []
    for profile in (None, PROFILES[name]):
        stored = in_profile(scene, profile)
        background = Picture(stored.astype(np.uint16) * 257 if deep else stored, profile)
        options = InsertOptions(Sampling("ddim", 2, 1.0), blend_named("membrane"))
        [[result]] = insert(model, background, [request], [one], options)  # type: ignore[arg-type]
        pixels = result.picture.pixels
        assert (
            np.array_equal(pixels[~mask], background.pixels[~mask]) and result.picture.icc_profile == profile
        )
        seen.append(shown(np.rint(pixels / 257).astype(np.uint8) if deep else pixels, profile).astype(int))
    assert np.abs(seen[0] - scene)[mask].max() > 20, "something is inserted"
    assert np.abs(seen[1] - seen[0])[mask].max() <= 3
