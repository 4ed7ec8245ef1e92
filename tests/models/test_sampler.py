"""Sampling: trajectories of the paper's code, guidance, and the solvers that it does not have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from ldm.models.base import Base
from ldm.models.cross_attention import Contexts
from ldm.models.diffusion import STEPS, alpha_bar
from ldm.models.sampler import MAX_STEPS, SAMPLERS, Condition, guided_eps, sample, scheduler
from tests.fixtures import tiny

GOLDEN = tiny.golden()
CLEAN = 0.7  # what the mild model below takes every picture for


class Mild:
    """Stands in for a base: the exact eps for data that are N(CLEAN, 0.25); every solver nears one x_0."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.levels: list[int] = []

    def eps(self, x_t: Tensor, t: Tensor, masked: Tensor, mask: Tensor, context: Tensor) -> Tensor:
        """E[eps | x_t], shifted by the context's first number so that guidance shows."""
        self.batches.append(len(x_t))
        self.levels.append(int(t))
        assert len(masked) == len(mask) == len(context) == len(x_t)
        a = alpha_bar()[t]
        variance = a * 0.25 + 1 - a
        shift = context[:, 0, 0].view(-1, 1, 1, 1)
        return (1 - a).sqrt() * (x_t - a.sqrt() * CLEAN) / variance + shift


def condition(b: int = 1, cond: float = 0.0, null: float = 0.0) -> Condition:
    latents = torch.zeros(b, 4, 8, 8)
    return Condition(
        latents, latents[:, :1], Contexts(torch.full((b, 2, 3), cond), torch.full((b, 2, 3), null))
    )


def noise(b: int = 1) -> Tensor:
    return torch.randn(b, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def run(model: Mild, c: Condition, x_T: Tensor, **options: Any) -> Tensor:
    return sample(cast(Base, model), c, x_T, **options)


def exact(name: str, steps: int, x_T: Tensor) -> Tensor:
    """Where the probability flow of the mild model leads from x_T: normal data stay normal on the way."""
    plan = scheduler(name)
    plan.set_timesteps(steps)
    a = alpha_bar()[int(plan.timesteps[0])]
    return CLEAN + 0.5 * (x_T - a.sqrt() * CLEAN) / (a * 0.25 + 1 - a).sqrt()


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny.loaded_base()


@pytest.mark.parametrize("steps", [5, 10, 50])
@pytest.mark.parametrize("name", ["plms", "ddim"])
def test_trajectories_are_those_of_the_papers_code(base: Base, name: str, steps: int) -> None:
    context = GOLDEN["cond.context"]
    keep = GOLDEN["sample.mask"]  # the paper's code: 1 = keep
    unconditional = base.conditioner.unconditional(context)
    c = Condition(GOLDEN["sample.masked_latents"], 1 - keep, Contexts(context, unconditional))
    x_0 = sample(base, c, GOLDEN["sample.x_T"], sampler=name, steps=steps, guidance_scale=5)
    assert distance(x_0, GOLDEN[f"sample.{name}{steps}"]) < 1e-4


@pytest.mark.parametrize("name", SAMPLERS)
def test_solvers_converge_to_the_exact_solution(name: str) -> None:
    """A wrong noise schedule, order or end would not; the paper's code has only two of the solvers."""
    x_T = noise()
    errors = {
        steps: distance(run(Mild(), condition(), x_T, sampler=name, steps=steps), exact(name, steps, x_T))
        for steps in (10, 50)
    }
    assert errors[50] < 0.03 and errors[50] < errors[10] / 2


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, MAX_STEPS])
def test_every_number_of_steps_is_finite(name: str, steps: int) -> None:
    model = Mild()
    x_0 = run(model, condition(2), noise(2), sampler=name, steps=steps)
    assert x_0.shape == (2, 4, 8, 8) and x_0.isfinite().all()
    plms_extra = 1 if name == "plms" and steps > 1 else 0  # its second order starts with a step done twice
    assert len(model.levels) == steps + plms_extra


@pytest.mark.parametrize("steps", [0, -3, MAX_STEPS + 1])
def test_an_impossible_number_of_steps_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"{steps} sampling steps; expected 1 to {MAX_STEPS}"):
        run(Mild(), condition(), noise(), steps=steps)


def test_an_unknown_sampler_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'euler' is unknown; choose one of plms, ddim, dpm\+\+, unipc"):
        scheduler("euler")


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_scheduler_has_the_bases_noise_levels(name: str) -> None:
    assert torch.allclose(scheduler(name).alphas_cumprod, alpha_bar(), rtol=2e-5, atol=0)


def test_guidance_runs_both_halves_in_one_batch() -> None:
    model = Mild()
    run(model, condition(3), noise(3), sampler="ddim", steps=4, guidance_scale=5)
    assert model.batches == [6] * 4


def test_scale_1_skips_the_unconditional_half_and_changes_nothing() -> None:
    model, c, t = Mild(), condition(3, cond=0.5, null=-2.0), torch.tensor(400)
    alone = guided_eps(cast(Base, model), c, 1)(noise(3), t)
    both = guided_eps(cast(Base, model), c, 1 + 1e-12)(noise(3), t)
    assert model.batches == [3, 6]
    assert torch.allclose(alone, both, atol=1e-6)


def test_guidance_is_the_formula_and_not_swapped() -> None:
    c, t = condition(2, cond=0.5, null=-2.0), torch.tensor(400)
    out = guided_eps(cast(Base, Mild()), c, 3)(noise(2), t)
    plain = guided_eps(cast(Base, Mild()), condition(2), 1)(noise(2), t)
    assert torch.allclose(out, plain + (-2.0 + 3 * 2.5), atol=1e-5)


@pytest.mark.parametrize("scale", [1, 3])
def test_beside_the_object_the_prediction_is_the_unconditional_one(scale: float) -> None:
    c, x_T = condition(cond=0.4, null=0.1), noise()
    own = torch.zeros(1, 1, 8, 8)
    own[..., :4] = 1
    found = run(Mild(), replace(c, own=own), x_T, sampler="ddim", steps=4, guidance_scale=scale)
    guided = run(Mild(), c, x_T, sampler="ddim", steps=4, guidance_scale=scale)
    null = run(Mild(), condition(cond=0.1), x_T, sampler="ddim", steps=4, guidance_scale=1)
    assert torch.allclose(found[..., :4], guided[..., :4], atol=1e-5)
    assert torch.allclose(found[..., 4:], null[..., 4:], atol=1e-5)
    assert not torch.allclose(guided, null, atol=0.1)


def test_outside_its_interval_guidance_costs_nothing_and_does_nothing() -> None:
    c, x_T = condition(2, cond=0.5, null=-2.0), noise(2)  # levels 0.751, 0.501, 0.251, 0.001
    model = Mild()
    inside = run(model, c, x_T, sampler="ddim", steps=4, guidance_interval=(0.2, 0.6))
    assert model.batches == [2, 4, 4, 2]
    everywhere, nowhere = (
        run(Mild(), c, x_T, sampler="ddim", steps=4, guidance_interval=interval)
        for interval in ((0.0, 1.0), (0.9, 1.0))
    )
    assert torch.equal(everywhere, run(Mild(), c, x_T, sampler="ddim", steps=4))
    assert torch.equal(nowhere, run(Mild(), c, x_T, sampler="ddim", steps=4, guidance_scale=1))
    assert not torch.allclose(inside, everywhere, atol=0.1) and not torch.allclose(inside, nowhere, atol=0.1)


@torch.no_grad()
def test_samples_of_a_batch_do_not_mix(base: Base) -> None:
    def one(i: slice) -> Tensor:
        c = Condition(masked[i], mask[i], Contexts(context[i], base.conditioner.unconditional(context[i])))
        return sample(base, c, x_T[i], sampler="ddim", steps=2, guidance_scale=2)

    g = torch.Generator().manual_seed(0)
    masked, x_T = torch.randn(2, 2, 4, 16, 16, generator=g)
    mask, context = torch.ones(2, 1, 16, 16), torch.randn(2, 5, 48, generator=g)
    together = one(slice(0, 2))
    assert distance(together[1:], one(slice(1, 2))) < 1e-4
    assert distance(together[1:], together[:1]) > 0.1


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_lower_strength_keeps_more_of_the_start(name: str) -> None:
    x_0 = torch.full((1, 4, 8, 8), -2.0)  # far from what the mild model draws
    kept = []
    for strength in (0.02, 0.3, 0.6, 1.0):
        out = run(Mild(), condition(), noise(), sampler=name, steps=20, start=(x_0, strength))
        kept.append(float((out - x_0).abs().mean()))
    assert kept == sorted(kept) and kept[0] < 0.2 and kept[-1] > 2


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_strength_runs_its_share_of_levels_and_steps(name: str) -> None:
    """It begins at the level that was asked for, whatever the number of steps: few are no less change."""
    for strength, steps, shared in ((0.8, 50, 40), (0.8, 10, 8), (0.3, 20, 6), (0.001, 1, 1)):
        model = Mild()
        run(model, condition(), noise(), sampler=name, steps=steps, start=(noise(), strength))
        assert len(model.levels) == shared + (name == "plms" and shared > 1), "it takes its second step twice"
        assert model.levels[0] == max(2, round(strength * STEPS)) - 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_is_from_the_last_level(name: str) -> None:
    model = Mild()
    run(model, condition(), noise(), sampler=name, steps=1)
    assert model.levels == [STEPS - 1]


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_first_levels_of_a_schedule_are_those_of_the_whole(name: str) -> None:
    assert torch.allclose(scheduler(name, 300).alphas_cumprod, scheduler(name).alphas_cumprod[:300])
