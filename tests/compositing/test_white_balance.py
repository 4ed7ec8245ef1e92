"""Cut-outs of one object in the light that its views have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from ldm.compositing.object_cut_outs import DARK, MAX_GAIN, mean_colour, white_balanced

COLOURS = torch.tensor([0.5, 0.3, 0.2])  # linear, of an object that is the same all over


def photo(gain: tuple[float, float, float], size: int = 8) -> Tensor:
    """A cut-out of the object in a light; its upper half is transparent, one row is its edge."""
    linear = (COLOURS * torch.tensor(gain)).clamp(0, 1)
    alpha = torch.zeros(1, size, size)
    alpha[:, size // 2 :], alpha[:, size // 2] = 1, 0.5
    return torch.cat([(linear ** (1 / 2.2) * 2 - 1)[:, None, None] * alpha, alpha])


def test_white_balanced_views_look_alike() -> None:
    views = torch.stack([photo((1, 1, 1)), photo((0.5, 0.6, 1.6)), photo((1.5, 1.2, 0.5))])
    shown = white_balanced(views, views)
    assert (views[1] - views[2]).abs().max() > 0.4
    assert (shown[1] - shown[2]).abs().max() < 0.06
    assert torch.equal(shown[:, 3], views[:, 3]), "light is no matter of alpha"
    assert shown[:, :3, : 8 // 2].abs().max() == 0, "there is nothing around it"
    logs = torch.stack([mean_colour(view).log() for view in views]).mean(0)
    assert torch.allclose(mean_colour(shown[0]).log(), logs, atol=0.05)


def test_a_reference_is_balanced_to_the_views() -> None:
    views = torch.stack([photo((1, 1, 1)), photo((1, 1, 1))])
    night = photo((0.3, 0.4, 0.9))[None]
    assert (white_balanced(night, views) - views[:1]).abs().max() < 0.12
    assert (night - views[:1]).abs().max() > 0.4


def test_one_view_and_pictures_without_alpha_stay_as_they_are() -> None:
    view = photo((0.7, 1, 1))[None]
    assert torch.allclose(white_balanced(view, view), view, atol=1e-5)
    assert torch.equal(white_balanced(view[:, :3], view), view[:, :3])
    assert torch.equal(white_balanced(view, view[:, :3]), view)


def test_dark_channels_count_little() -> None:
    """A duck's yellow has no blue: its trace of blue must not decide on all of its colours."""
    views = torch.stack([photo((1, 1, 0.01)), photo((1, 1, 0.05))])
    assert mean_colour(views[0])[2] < 2 * DARK
    assert (white_balanced(views, views) - views)[:, 2].abs().max() < 0.04, "0.08 if it decided"
    black = torch.stack([photo((0, 0, 0)), photo((1, 1, 1))])
    assert mean_colour(white_balanced(black, black)[1]).max() < mean_colour(black[1]).max()
    assert mean_colour(white_balanced(black, black)[1]).min() > mean_colour(black[1]).min() / (MAX_GAIN + 1)


def test_a_faint_cut_out_counts_and_an_empty_one_is_ignored() -> None:
    faint = photo((1, 1, 1)) * 0.85
    views = torch.stack([photo((1, 1, 1)), faint, torch.zeros(4, 8, 8)])
    shown = white_balanced(views, views)
    assert torch.allclose(shown, views, atol=1e-5), "they all are of one light"
    nothing = torch.zeros(1, 4, 8, 8)
    assert torch.equal(white_balanced(views, nothing), views)
