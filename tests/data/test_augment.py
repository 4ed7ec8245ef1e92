"""References change at random, within bounds; geometry against exact oracles."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ldm.data import pairs as augment


def smooth(size: int = 32) -> Tensor:
    """A random image [3,size,size] in [-1,1] without fine detail, so that resampling hardly changes it."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=True)[0]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("quarters", [-1, 0, 1, 2])
def test_warp_mirrors_and_turns(flip: bool, quarters: int) -> None:
    """Oracle: quarter turns are exact permutations of pixels; the mirroring comes first."""
    image = smooth()
    expected = torch.rot90(image.flip(-1) if flip else image, quarters, dims=(1, 2))
    warped = augment.warp(image, flip, 90.0 * quarters, torch.zeros(1, 2, 4, 4))
    assert (warped - expected).abs().max() < 1e-3


def test_warp_moves_by_the_nodes() -> None:
    nodes = torch.zeros(1, 2, 4, 4)
    nodes[:, 0] = 2 / 32  # a pixel of 32, to the right in the grid: the image moves to the left
    image = smooth()
    assert (augment.warp(image, False, 0.0, nodes)[..., 2:-2] - image[..., 3:-1]).abs().max() < 1e-3


def test_box_blur_is_the_mean_of_the_neighbours() -> None:
    image = torch.zeros(1, 9, 9)
    image[0, 4, 4] = 25
    expected = torch.zeros(1, 9, 9)
    expected[0, 2:7, 2:7] = 1
    assert torch.allclose(augment.box_blur(image, 2), expected)


def test_augmentation_varies() -> None:
    image = smooth()
    drawn = [augment.augmented(image, torch.Generator().manual_seed(seed)) for seed in range(60)]
    assert all(view.shape == image.shape and view.abs().max() <= 1 for view in drawn)
    untouched = sum(torch.allclose(view, image, atol=1e-3) for view in drawn)
    mirrored = sum((view - image.flip(-1)).abs().mean() < (view - image).abs().mean() for view in drawn)
    assert 1 <= untouched <= 20 and 20 <= mirrored <= 40


def test_turns_stay_within_20_degrees(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[float] = []
    warp = augment.warp

    def spy(image: Tensor, flip: bool, degrees: float, nodes: Tensor) -> Tensor:
        turns.append(degrees)
        return warp(image, flip, degrees, nodes)

    monkeypatch.setattr(augment, "warp", spy)
    for seed in range(200):
        augment.augmented(smooth(8), torch.Generator().manual_seed(seed))
    assert -20 <= min(turns) < -15 and 15 < max(turns) <= 20
