"""Deep features reused between steps: the UNet in two parts is the UNet, and nothing else is skipped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.models.base import Base
from ldm.models.cross_attention import Contexts
from ldm.models.inpainting_model import forward
from ldm.models.sampler import Condition, sample
from ldm.speed.deep_cache import DeepCache, shallow, whole
from tests.fixtures import tiny
from tests.fixtures.small import small_base


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def contexts(base: Base, b: int = 1) -> Contexts:
    return base.contexts(noise(b, 3, base.architecture.context_width, seed=2))


def condition(base: Base, b: int = 1) -> Condition:
    return Condition(noise(b, 4, 16, 16, seed=3), torch.ones(b, 1, 16, 16), contexts(base, b))


@dataclass
class Counted:
    """Counts which parts of the UNet are run."""

    names: list[str] = field(default_factory=list)

    def __call__(self, function: Any, *arguments: Any) -> Any:
        self.names.append(function.__name__)
        return function(*arguments)


@pytest.mark.parametrize("make", [tiny.loaded_base, small_base])
@pytest.mark.parametrize("size", [(16, 16), (24, 16), (18, 14)])
@torch.no_grad()
def test_the_parts_are_the_whole(make: Any, size: tuple[int, int]) -> None:
    base, t = make(), torch.tensor(300)
    x, context = noise(2, 9, *size), contexts(base, 2).conditional
    out, deep = whole(base.unet, x, t, context)
    assert torch.equal(out, forward(base.unet, x, t, context))
    assert torch.equal(shallow(base.unet, x, t, context, deep), out)


@torch.no_grad()
def test_what_is_not_reused_is_of_this_step() -> None:
    """Another input with old deep features is neither of the two whole outputs."""
    base, t = small_base(), torch.tensor(300)
    context = contexts(base).conditional
    (old, deep), (new, _) = (whole(base.unet, noise(1, 9, 16, 16, seed=i), t, context) for i in (0, 1))
    mixed = shallow(base.unet, noise(1, 9, 16, 16, seed=1), t, context, deep)
    assert not torch.allclose(mixed, old, atol=1e-3) and not torch.allclose(mixed, new, atol=1e-3)


@pytest.mark.parametrize("every, parts", [(1, "wwwww"), (2, "wswsw"), (3, "wssws")])
def test_every_so_many_steps_run_it_all(every: int, parts: str) -> None:
    base = small_base()
    base.run = counted = Counted()
    sample(DeepCache(base, every), condition(base), noise(1, 4, 16, 16), sampler="ddim", steps=5)
    assert "".join(name[0] for name in counted.names) == parts


def test_without_reuse_it_is_the_painter() -> None:
    base = small_base()
    x_T, options = noise(2, 4, 16, 16), {"sampler": "dpm++", "steps": 4}
    plain = sample(base, condition(base, 2), x_T, **options)
    assert torch.equal(sample(DeepCache(base, 1), condition(base, 2), x_T, **options), plain)
    near = sample(DeepCache(base, 2), condition(base, 2), x_T, **options)
    assert 0 < (near - plain).norm() < 0.5 * plain.norm()


def test_where_guidance_ends_the_objects_half_goes_on_and_where_it_begins_all_is_run() -> None:
    base = small_base()
    base.run = counted = Counted()
    c, options = condition(base, 2), {"sampler": "ddim", "steps": 4}  # levels 0.751, 0.501, 0.251, 0.001
    sample(DeepCache(base, 4), c, noise(2, 4, 16, 16), guidance_interval=(0.4, 1), **options)
    assert "".join(name[0] for name in counted.names) == "wsss"
    counted.names.clear()
    sample(DeepCache(base, 4), c, noise(2, 4, 16, 16), guidance_interval=(0, 0.6), **options)
    assert "".join(name[0] for name in counted.names) == "wwss"
