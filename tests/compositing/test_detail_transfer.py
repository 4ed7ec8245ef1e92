"""A result that keeps the detail of the composite."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ldm.compositing.composite import composite_over, transfer_detail


def fine(size: int = 128) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-0.3, 0.3, (3, size, size))).float()


def test_a_change_of_light_goes_over_layer_and_scene_and_leaves_their_detail() -> None:
    known, layer = fine(), torch.zeros(4, 128, 128)
    layer[:3, 30:90, 30:90], layer[3, 30:90, 30:90] = fine()[:, :60, :60], 1
    change = torch.full((3, 32, 32), -0.2)
    begun, alpha = composite_over(layer[None], known[None])[0], layer[3]
    assert torch.allclose(transfer_detail(begun, alpha, change, 12), begun - 0.2, atol=0.06)
    assert torch.equal(transfer_detail(begun, alpha, change * 0, 12), begun)
    assert transfer_detail(begun, alpha, change * 100, 12).min() == -1
    colour = torch.tensor([0.1, 0.2, 0.3])[:, None, None].expand(3, 32, 32)
    found = transfer_detail(begun, alpha, colour, 12)
    assert torch.equal(found[:, alpha == 0], begun[:, alpha == 0]), "a scene is darkened at most"
    tinted = (found - begun)[:, 60, 60]
    assert torch.allclose(tinted, colour[:, 0, 0], atol=0.02)


def test_changes_of_object_and_scene_are_separate_and_their_edge_is_ignored() -> None:
    alpha = torch.zeros(128, 128)
    alpha[32:96, 32:96] = 1
    change = torch.full((3, 32, 32), -0.1)
    change[:, 7:25, 7:25] = 0.9  # a model's blurred edge
    change[:, 9:23, 9:23] = 0.3
    found = transfer_detail(torch.zeros(3, 128, 128), alpha, change, 16)
    assert torch.allclose(found[:, 34:94, 34:94], torch.tensor(0.3), atol=0.02)
    assert torch.allclose(found[:, :30], torch.tensor(-0.1), atol=0.02)


def test_an_object_too_small_for_a_core_still_changes() -> None:
    alpha = torch.zeros(128, 128)
    alpha[60:68, 60:68] = 1
    found = transfer_detail(torch.zeros(3, 128, 128), alpha, torch.full((3, 32, 32), 0.3), 8)
    assert torch.allclose(found[:, 60:68, 60:68], torch.tensor(0.3), atol=0.03)
    assert torch.isfinite(transfer_detail(torch.zeros(3, 9, 9), alpha[:9, :9], change_of_none(), 8)).all()


def change_of_none() -> Tensor:
    return torch.zeros(3, 32, 32)


def test_what_is_finer_than_the_width_is_no_change() -> None:
    checks = torch.from_numpy(np.indices((64, 64)).sum(0) % 2 * 2.0 - 1).float().expand(3, -1, -1)
    known, alpha = torch.zeros(3, 128, 128), torch.zeros(128, 128)
    differences = [float(transfer_detail(known, alpha, checks, width).abs().mean()) for width in (1, 8, 32)]
    assert differences[0] > 0.2 and differences[1] < 0.1 and differences[2] < 0.02
