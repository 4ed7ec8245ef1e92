"""uint8 <=> float is exact."""

import numpy as np
import pytest
import torch

from ldm.data.image import from_bytes, resize, to_bytes, to_image, to_pixels


def test_round_trip_changes_no_value():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    image = to_image(pixels)
    assert image.shape == (3, 16, 16) and image.min() == -1 and image.max() == 1
    assert np.array_equal(to_pixels(image), pixels)


def test_pixels_are_rounded_and_clamped():
    image = torch.tensor([-3.0, 0.6 / 127.5 - 1, 1.7]).view(3, 1, 1)
    assert to_pixels(image).ravel().tolist() == [0, 1, 255]


@pytest.mark.parametrize("size", [8, (5, 9), 40])
def test_resize_keeps_the_value_range(size):
    image = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0)).sign()
    out = resize(image, size)
    assert out.shape[-2:] == ((size, size) if isinstance(size, int) else size)
    assert out.min() >= -1 and out.max() <= 1


def test_resize_of_an_image_does_not_depend_on_the_others_of_its_batch():
    image = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0)).round()
    together = resize(torch.cat([image, 3 * image - 1]), 33)
    assert torch.equal(together[:1], resize(image, 33))


def test_resize_to_the_same_size_is_the_same_image():
    image = torch.rand(1, 3, 7, 9)
    assert resize(image, (7, 9)) is image


def test_cut_outs_as_bytes_keep_alpha_and_are_0_where_transparent():
    levels = torch.arange(256).expand(4, 1, 256).to(torch.uint8).clone()
    image = from_bytes(levels)
    assert torch.allclose(image[3], torch.arange(256) / 255.0) and (image[:, 0, 0] == 0).all()
    assert torch.equal(to_bytes(image)[:, :, 1:], levels[:, :, 1:]) and to_bytes(image)[3, 0, 0] == 0
    assert torch.equal(to_bytes(from_bytes(levels[:3])), levels[:3])
