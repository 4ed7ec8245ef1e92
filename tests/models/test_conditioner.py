"""The context: reference values of the paper's code, and what each few-shot kind adds to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from einops import rearrange
from torch import Tensor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ldm.models.base import Base
from ldm.models.conditioner import CLIP_MEAN, CLIP_STD, Conditioner, clip_normalised, raw_pixels
from tests.fixtures import tiny

GOLDEN = tiny.golden()
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny.loaded_base()


@pytest.fixture
def conditioner(base: Base) -> Iterator[Conditioner]:
    yield base.conditioner
    base.conditioner.drop_few_shot()


def close(ours: Tensor, golden: str) -> bool:
    assert ours.shape == GOLDEN[golden].shape
    return float((ours - GOLDEN[golden]).abs().max()) < TOLERANCE


@torch.no_grad()
def test_one_token_is_paint_by_examples(conditioner: Conditioner) -> None:
    context = conditioner(conditioner.pooled(GOLDEN["cond.reference"]))
    assert close(context, "cond.context_paint_by_example")


@torch.no_grad()
def test_linear_few_shot_tokens_are_the_papers(conditioner: Conditioner, base: Base) -> None:
    features = conditioner.hidden(GOLDEN["cond.few_shot"])
    assert close(features, "cond.few_shot_features")
    tiny.use_prior_encoder(base, features)
    context = conditioner(conditioner.pooled(GOLDEN["cond.reference"]), conditioner.few_shot())
    assert close(context, "cond.context")


@torch.no_grad()
def test_raw_pixels_are_what_the_papers_code_shows_clip(conditioner: Conditioner, base: Base) -> None:
    crops = GOLDEN["reference_code.few_shot_crops"]
    assert crops.shape[1] == crops.shape[2], "the swap of axes is invisible in shapes only for squares"
    image = rearrange(crops.float(), "N H W c -> N c H W") / 127.5 - 1
    features = conditioner.hidden(raw_pixels(image))
    assert close(features, "reference_code.few_shot_features")
    tiny.use_prior_encoder(base, features)
    context = conditioner(conditioner.pooled(GOLDEN["cond.reference"]), conditioner.few_shot())
    assert close(context, "reference_code.context")


def test_raw_pixels_are_bytes_with_swapped_axes() -> None:
    pixels = torch.arange(3 * 4 * 5).view(1, 3, 4, 5)
    assert torch.equal(raw_pixels(pixels / 127.5 - 1), pixels.float().transpose(2, 3))


def test_clip_normalisation_is_clips_own() -> None:
    assert list(CLIP_MEAN) == OPENAI_CLIP_MEAN and list(CLIP_STD) == OPENAI_CLIP_STD
    mean = (torch.tensor(CLIP_MEAN) * 2 - 1).view(1, 3, 1, 1)
    assert torch.allclose(clip_normalised(mean), torch.zeros(1, 3, 1, 1), atol=1e-6)
    brighter = clip_normalised(mean + 2 * torch.tensor(CLIP_STD).view(1, 3, 1, 1))
    assert torch.allclose(brighter, torch.ones(1, 3, 1, 1), atol=1e-6)


def test_unconditional_is_the_learnable_vector_everywhere(conditioner: Conditioner) -> None:
    unconditional = conditioner.unconditional(torch.zeros(2, 5, 48))
    assert unconditional.shape == (2, 5, 48)
    assert torch.equal(unconditional, GOLDEN["cond.unconditional"].expand(2, 5, 48))


def test_tokens_are_trained_and_stay_apart_from_what_they_start_from(conditioner: Conditioner) -> None:
    pooled = conditioner.pooled(GOLDEN["cond.few_shot"])
    conditioner.use_tokens(pooled)
    pooled.zero_()
    tokens = conditioner.few_shot()
    assert tokens is not None and tokens.requires_grad and tokens.abs().min() > 0
    conditioner(torch.zeros(2, 64), tokens).sum().backward()
    assert tokens.grad is not None and tokens.grad.abs().sum() > 0
    assert "few_shot_tokens" in conditioner.state_dict()


@torch.no_grad()
@pytest.mark.parametrize("n", [1, 3])
def test_any_number_of_tokens_for_any_batch(conditioner: Conditioner, n: int) -> None:
    """Tokens [N,c] serve every sample of a batch; [b,N,c] are each sample's own."""
    g = torch.Generator().manual_seed(0)
    reference, tokens = torch.randn(2, 64, generator=g), torch.randn(n, 64, generator=g)
    context = conditioner(reference, tokens)
    assert context.shape == (2, 1 + n, 48)
    assert torch.allclose(conditioner(reference, torch.stack([tokens, tokens])), context)
    other = conditioner(reference, torch.stack([tokens, -tokens]))
    assert torch.allclose(other[0], context[0], atol=1e-5) and not torch.allclose(other[1], context[1])


@torch.no_grad()
def test_few_shot_kinds_replace_each_other(conditioner: Conditioner) -> None:
    before = set(conditioner.state_dict())
    conditioner.use_linear(torch.randn(4, 17, 64))
    assert set(conditioner.state_dict()) - before == {
        "prior_encoder.prior_block.1.weight",
        "prior_encoder.prior_block.1.bias",
    }, "the constant features are no weights"
    conditioner.use_tokens(torch.zeros(2, 64))
    assert set(conditioner.state_dict()) - before == {"few_shot_tokens"}
    assert torch.equal(conditioner.few_shot(), torch.zeros(2, 64))
    conditioner.drop_few_shot()
    assert set(conditioner.state_dict()) == before and conditioner.few_shot() is None


@torch.no_grad()
@pytest.mark.parametrize("kind", ["tokens", "linear"])
def test_a_single_view_stands_in_every_place(conditioner: Conditioner, kind: str) -> None:
    if kind == "tokens":
        conditioner.use_tokens(torch.randn(3, 64))
    else:
        conditioner.use_linear(torch.randn(3, 17, 64))
    tokens = conditioner.few_shot()
    each = conditioner.few_shot_by_sample(torch.tensor([-1, 2]))
    assert tokens is not None and each is not None
    assert torch.equal(each[0], tokens) and torch.equal(each[1], tokens[[2, 2, 2]])
    conditioner.drop_few_shot()
    assert conditioner.few_shot_by_sample(torch.tensor([-1, 0])) is None


def test_features_follow_the_conditioner(conditioner: Conditioner) -> None:
    """A constant that stayed behind on another device or in another dtype would break inference only."""
    conditioner.use_linear(torch.zeros(1, 17, 64))
    features = conditioner.bfloat16().few_shot_features
    conditioner.float()
    assert features is not None and features.dtype == torch.bfloat16


def test_clip_gets_no_gradient(conditioner: Conditioner) -> None:
    conditioner.clip.requires_grad_(True)
    try:
        assert not conditioner.pooled(GOLDEN["cond.reference"]).requires_grad
        assert not conditioner.hidden(GOLDEN["cond.reference"]).requires_grad
    finally:
        conditioner.clip.requires_grad_(False)
