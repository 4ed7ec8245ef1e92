"""Strict loading and fingerprints."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ldm.models.checkpoint import first_few, load_strictly
from ldm.models.weight_files import fingerprint


def weights(**changes: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {"a.weight": torch.randn(70, 90, generator=generator), "b": torch.randn(5, generator=generator)}
    return state | changes


def module() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))


def test_fitting_weights_are_loaded_in_the_modules_dtype() -> None:
    source, target = module(), module()
    load_strictly(target, {k: v.half() for k, v in source.state_dict().items()}, "a test")
    assert target[0].weight.dtype == torch.float32
    assert torch.equal(target[0].weight, source[0].weight.half().float())


def test_misfits_are_one_sentence_and_load_nothing() -> None:
    target = module()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    state = {f"extra.{i}": torch.zeros(1) for i in range(5)}
    state |= {"0.weight": torch.zeros(4, 3), "0.bias": torch.ones(2)}
    with pytest.raises(ValueError) as caught:
        load_strictly(target, state, "the UNet of configs/v.yaml")
    message = str(caught.value)
    assert "do not fit the UNet of configs/v.yaml" in message
    assert "2 weights missing: 1.weight, 1.bias" in message
    assert "5 weights extra: extra.0, extra.1, extra.2 and 2 more" in message
    assert "1 weight of another shape: 0.weight [4, 3] instead of [2, 3]" in message
    assert "\n" not in message
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_first_few_names() -> None:
    assert first_few(["a", "b"]) == "a, b"
    assert first_few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_fingerprint_ignores_order_precision_memory_format_and_integers() -> None:
    state = weights()
    own = fingerprint(state)
    assert len(own) == 16 and int(own, 16) >= 0
    assert fingerprint(dict(reversed(state.items()))) == own
    assert fingerprint({key: value.half() for key, value in state.items()}) == own
    assert fingerprint(weights(ids=torch.arange(3))) == own
    assert fingerprint({key: value.t().contiguous().t() for key, value in state.items()}) == own


@pytest.mark.parametrize(
    "changed",
    [
        weights(b=torch.zeros(5)),
        weights(c=torch.zeros(1)),
        weights(**{"a.weight": weights()["a.weight"].reshape(90, 70)}),
        weights(**{"a.weight": weights()["a.weight"] * 1.01}),
        {"renamed": weights()["a.weight"], "b": weights()["b"]},
        {"b": weights()["b"]},
    ],
)
def test_other_weights_have_another_fingerprint(changed: dict[str, Tensor]) -> None:
    assert fingerprint(changed) != fingerprint(weights())


def test_fingerprint_of_known_weights_never_changes() -> None:
    """Object files name their base by it: another value makes every file in use unusable."""
    assert (
        fingerprint({"a": torch.arange(9000.0).reshape(90, 100), "b": torch.ones(())}) == "88bc88bfc0d991f0"
    )


def test_a_module_without_memory_takes_the_weights_themselves_in_its_dtype() -> None:
    with torch.device("meta"):
        module = nn.Linear(3, 2)
    state = {"weight": torch.randn(2, 3), "bias": torch.randn(2, dtype=torch.float64)}
    load_strictly(module, state, "it")
    assert module.weight.data_ptr() == state["weight"].data_ptr(), "no copy"
    assert module.bias.dtype == torch.float32 and torch.equal(module.bias, state["bias"].float())
    with pytest.raises(ValueError, match="1 weight missing: bias"):
        load_strictly(module, {"weight": state["weight"]}, "it")


def test_where_a_file_holds_a_weight_is_of_no_effect() -> None:
    """Kernels sum otherwise on odd addresses."""
    with torch.device("meta"):
        module = nn.Linear(3, 2, bias=False)
    odd = torch.randn(7)[1:].view(2, 3)
    load_strictly(module, {"weight": odd}, "it")
    assert module.weight.data_ptr() % 64 == 0 and torch.equal(module.weight, odd)
