"""The ImageNet network: how images are compared by it."""

import pytest
import torch

from ldm.features.imagenet import MEAN, SIZE, ImageNetFeatures, likeness, on_square


def test_an_image_is_centred_on_the_mean_colour() -> None:
    crop = on_square(torch.ones(3, SIZE, SIZE // 2), MEAN)
    assert crop.shape == (3, SIZE, SIZE) and (crop[:, :, SIZE // 4 : -SIZE // 4] == 1).all()
    mean = torch.tensor(MEAN) * 2 - 1
    assert torch.equal(crop[:, 3, 0], mean) and torch.equal(crop[:, 3, -1], mean)


def test_likeness_is_of_pictures_of_any_two_sizes() -> None:
    features = ImageNetFeatures()
    a = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(4)) * 2 - 1
    stripes = torch.sin(torch.arange(50.0)).expand(3, 40, 50)
    larger = torch.nn.functional.interpolate(a[None], scale_factor=2, mode="nearest")[0]
    assert likeness(features, a, a) == pytest.approx(1, abs=1e-5)
    assert likeness(features, a, larger) > likeness(features, a, stripes) + 0.1
    assert likeness(features, stripes, a) == pytest.approx(likeness(features, a, stripes), abs=1e-5)
