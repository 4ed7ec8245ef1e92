"""The three stages of a base: their losses, and which weights each of them moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ldm.models.base import Base
from ldm.models.diffusion import alpha_bar
from ldm.pretrain.image_ops import batch_psnr
from ldm.pretrain.insertion_samples import InsertionComposer
from ldm.pretrain.networks import AutoencoderCrops
from ldm.pretrain.picture_pack import Pack
from ldm.pretrain.stages import Drawn
from ldm.pretrain.unet_training import CHANGE, OUTSIDE, BaseTraining, Encoded, weighted_loss
from tests.fixtures.pictures import small_pack
from tests.fixtures.small import SMALL

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return small_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def composer(pack: Pack) -> InsertionComposer:
    return InsertionComposer(pack, SMALL.image_size, SMALL.reference_size, 2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(module: nn.Module) -> set[str]:
    """Names of the weights that a loss has reached."""
    return {name for name, w in module.named_parameters() if w.grad is not None and w.grad.abs().max() > 0}


def names(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_parameters()}


def optimised(module: pl.LightningModule) -> set[int]:
    optimizer: Any = module.configure_optimizers()
    return {id(w) for group in optimizer["optimizer"].param_groups for w in group["params"]}


@pytest.mark.parametrize("kind", ["crops", "batch"])
def test_a_batch_is_a_function_of_seed_and_place(pack: Pack, composer: InsertionComposer, kind: str) -> None:
    """A stage that resumes at step i continues with the batch it would have had."""
    draw = AutoencoderCrops(pack, 32).batch if kind == "crops" else composer.batch
    first, again, other = Drawn(draw, 3, 10, 7), Drawn(draw, 3, 99, 7), Drawn(draw, 3, 10, 8)
    assert len(first) == 10 and len(again) == 99

    def tensors(drawn: Drawn, i: int) -> list[Tensor]:
        return [drawn[i]] if isinstance(drawn[i], Tensor) else list(drawn[i])

    for a, b in zip(tensors(first, 4), tensors(again, 4), strict=True):
        assert len(a) == 3 and torch.equal(a, b)
    assert not torch.equal(tensors(first, 4)[0], tensors(first, 5)[0])
    assert not torch.equal(tensors(first, 4)[0], tensors(other, 4)[0])


def test_psnr_of_known_errors() -> None:
    a = torch.zeros(2, 3, 4, 4)
    b = torch.stack([torch.full((3, 4, 4), 0.2), torch.full((3, 4, 4), 2.0)]) * 1.0
    assert batch_psnr(b[:1], a[:1]).tolist() == pytest.approx([20.0], abs=1e-4)
    assert batch_psnr(b[1:], a[1:] + 1).tolist() == pytest.approx([100.0], abs=1e-4), (
        "clamped before it is compared"
    )


def loss_of(error: Tensor, mask: Tensor, t: int) -> float:
    eps = torch.randn(error.shape, generator=generator())
    return weighted_loss(eps, eps + error, mask, torch.full((len(error),), t)).item()


def test_with_a_full_mask_the_loss_is_that_of_v_and_of_x_0_where_something_is_shown() -> None:
    error, everything = torch.randn(3, 4, 8, 8, generator=generator(1)), torch.ones(3, 1, 8, 8)
    shown = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    shown[:2] = True
    for t in (0, 50, 300, 600, 999):
        a = alpha_bar()[t].item()
        eps = torch.randn(error.shape, generator=generator())
        of_v, of_x_0 = error.square() / a, CHANGE * error.square() * (1 - a) / a
        assert loss_of(error, everything, t) == pytest.approx(of_v.mean().item(), rel=1e-4)
        found = weighted_loss(eps, eps + error, everything, torch.full((3,), t), shown).item()
        assert found == pytest.approx(torch.where(shown, of_x_0, of_v).mean().item(), rel=1e-4)


def test_the_masked_region_has_a_larger_weight() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    inside, outside = mask.expand(1, 4, 8, 8), 1 - mask.expand(1, 4, 8, 8)
    assert loss_of(outside, mask, 900) / loss_of(inside, mask, 900) == pytest.approx(OUTSIDE, rel=1e-4)
    power = alpha_bar()[900].item()
    assert loss_of(inside + outside, mask, 900) == pytest.approx(1 / power, rel=1e-4), "an error of v"


def test_what_is_shown_is_learnt_at_the_last_level_alone() -> None:
    t, mask = torch.arange(3) * 300, torch.zeros(3, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    for prediction in ("v", "change"):
        torch.manual_seed(0)
        base = Base(replace(SMALL, prediction=prediction)).requires_grad_(False)
        masked = base.encode(torch.zeros(3, 3, 96, 96))[..., 16:32, 16:32]
        masked[1] += 0.5  # the second shows something in its region
        masked[2, :, :5] += 0.5  # the third only around it, and at its edge
        levels = base.training_timesteps(t, masked, mask).tolist()
        assert levels == ([0, 999, 600] if prediction == "change" else [0, 300, 600])


def encoded(b: int = 2, views: int = 4) -> Encoded:
    g = generator()
    x_0, masked = torch.randn(2, b, 4, 16, 16, generator=g)
    mask = torch.rand(b, 1, 16, 16, generator=g).round()
    references = torch.randint(256, (b, views, 3, 28, 28), generator=g).to(torch.uint8)
    return Encoded(x_0, masked, mask, references, torch.arange(b))


def contexts(module: BaseTraining, batch: Encoded) -> Tensor:
    return module.contexts(batch.references, batch.object)


def base_training(drop_context: float, seed: int = 0) -> BaseTraining:
    torch.manual_seed(seed)
    return BaseTraining(Base(SMALL), 1e-3, 100, drop_context=drop_context)


def test_the_base_stage_trains_everything_but_the_vae() -> None:
    module = base_training(drop_context=0.5)
    for _ in range(24):  # number of views, dropped contexts and t are random
        loss = module.training_step(encoded(), 0)
        assert loss.isfinite()
        loss.backward()
    expected = {n for n in names(module) if not n.startswith("base.vae.")}
    unreached = expected - moved(module)
    assert all("clip" in name for name in unreached), (
        unreached
    )  # CLIP's last norm is not in the pooled output
    assert len(unreached) <= 2, unreached
    assert moved(module) <= expected
    assert optimised(module) == {id(w) for n, w in module.named_parameters() if n in expected}


@pytest.mark.parametrize("drop_context", [0.0, 1.0])
def test_a_dropped_context_is_the_learnable_vector(drop_context: float) -> None:
    module = base_training(drop_context)
    module.training_step(encoded(), 0).backward()
    conditioner = {n for n in moved(module) if n.startswith("base.conditioner.")}
    vector = {"base.conditioner.learnable_vector"}
    assert conditioner == vector if drop_context else conditioner and not conditioner & vector
    context = contexts(module, encoded())
    same = torch.equal(context, module.base.conditioner.unconditional(context))
    assert same == bool(drop_context)


def test_a_frozen_encoders_outputs_do_for_the_references() -> None:
    module = base_training(0.0)
    batch = encoded()
    with torch.no_grad():
        pooled = module.pooled(batch.references)
        torch.manual_seed(3)
        from_pictures = contexts(module, batch)
        torch.manual_seed(3)
        assert torch.allclose(contexts(module, batch._replace(references=pooled)), from_pictures, atol=1e-6)


def test_contexts_have_any_number_of_further_views() -> None:
    module = base_training(0.0)
    with torch.no_grad():
        lengths = {contexts(module, encoded(views=4)).shape[1] for _ in range(40)}
        assert lengths == {1, 2, 3, 4}
        alone = contexts(module, encoded(views=1))
    assert torch.allclose(
        alone, module.base.context(encoded(views=1).references[:, 0] / 127.5 - 1), atol=1e-5
    )


def test_the_reference_teaches_clip_and_further_views_do_not() -> None:
    """Only one of the views keeps CLIP's activations: that is what makes the stage fit on a small machine."""
    module = base_training(0.0)
    seen: list[bool] = []
    module.base.conditioner.clip.register_forward_hook(
        lambda m, args, kwargs, out: seen.append(out.pooler_output.requires_grad), with_kwargs=True
    )
    while len(seen) < 2:
        seen.clear()
        contexts(module, encoded())
    assert seen == [True, False]
