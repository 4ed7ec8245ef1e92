"""The learning rate over a run."""

from __future__ import annotations

import pytest
import torch
from torch.optim import SGD

from ldm.training.schedule import warm_cosine


def rates(steps: int, warmup: int, until: int) -> list[float]:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = warm_cosine(optimizer, steps, warmup)
    assert schedule["interval"] == "step"
    out = []
    for _ in range(until):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule["scheduler"].step()
    return out


def test_it_warms_up_then_falls_to_its_floor_and_stays() -> None:
    lr = rates(steps=100, warmup=10, until=130)
    assert lr[0] == pytest.approx(0.2, rel=1e-3)
    peak = lr.index(max(lr))
    assert 8 <= peak <= 11 and 1.9 < max(lr) <= 2.0
    assert lr[:peak] == sorted(lr[:peak]) and lr[peak:] == sorted(lr[peak:], reverse=True)
    assert lr[55] == pytest.approx(2 * (0.02 + 0.98 * 0.42178), rel=1e-3)
    assert lr[100:] == pytest.approx([2 * 0.02] * 30)
