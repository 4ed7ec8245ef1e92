"""The learning rate over a run."""

from __future__ import annotations

import pytest
import torch
from torch.optim import SGD

from ldm.training.trainer import cosine_with_warmup


def rates(steps: int, warmup_steps: int, until: int) -> list[float]:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = cosine_with_warmup(optimizer, steps, warmup_steps)
    assert schedule["interval"] == "step"
    out = []
    for _ in range(until):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule["scheduler"].step()
    return out


def test_it_warms_up_then_falls_to_its_floor_and_stays() -> None:
    lr = rates(steps=100, warmup_steps=10, until=130)
    assert lr[0] == pytest.approx(0.2, rel=1e-3)
    peak = lr.index(max(lr))
    assert 8 <= peak <= 11 and 1.9 < max(lr) <= 2.0
    assert lr[:peak] == sorted(lr[:peak]) and lr[peak:] == sorted(lr[peak:], reverse=True)
    assert lr[55] == pytest.approx(2 * (0.02 + 0.98 * 0.42178), rel=1e-3)
    assert lr[100:] == pytest.approx([2 * 0.02] * 30)


def test_a_final_share_of_one_is_a_warm_up_and_then_constant() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    factor = cosine_with_warmup(optimizer, steps=10, warmup_steps=4, final=1.0)["scheduler"].lr_lambdas[0]
    assert [factor(step) for step in range(7)] == [0.25, 0.5, 0.75, 1, 1, 1, 1]
