"""Half precision stays near fp32 and in the UNet; if compiling fails, the model runs uncompiled."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.models.base import Base, base_fingerprint
from ldm.models.cross_attention import cross_attentions
from ldm.models.runtime import Compiled, Runtime, device_named, prepare
from ldm.models.sampler import Condition, sample
from ldm.speed.deep_cache import DeepCache
from tests.fixtures import tiny
from tests.fixtures.small import small_base


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sampled(base: Base, every: int = 1) -> Tensor:
    contexts = base.contexts(noise(1, 3, base.architecture.context_width, seed=2))
    c = Condition(noise(1, 4, 16, 16, seed=3), torch.ones(1, 1, 16, 16), contexts)
    return sample(DeepCache(base, every), c, noise(1, 4, 16, 16), sampler="dpm++", steps=4, guidance_scale=2)


def test_plain_changes_nothing_but_rounding() -> None:
    base, prepared = small_base(), small_base()
    prepare(prepared, Runtime())
    assert base_fingerprint(prepared) == base_fingerprint(base)
    assert torch.allclose(sampled(prepared), sampled(base), atol=1e-3)


@pytest.mark.parametrize("precision, near", [("bf16", 0.03), ("fp16", 0.005)])
def test_half_precision_is_near_and_gives_fp32(precision: str, near: float) -> None:
    base = tiny.loaded_base()
    expected = sampled(base)
    prepare(base, Runtime(precision))
    out = sampled(base)
    assert out.dtype == torch.float32
    assert 0 < (out - expected).norm() < near * expected.norm()


def test_half_precision_is_the_unets_but_for_what_is_folded() -> None:
    base = small_base()
    before = copy.deepcopy(base.state_dict())
    prepare(base, Runtime("bf16"))
    kept = [name for name, _ in cross_attentions(base.unet)]
    for name, weight in base.state_dict().items():
        half = name.startswith("unet.") and not any(name.startswith(f"unet.{layer}.") for layer in kept)
        assert (weight.dtype == torch.bfloat16) == half, name
        assert half or torch.equal(weight, before[name]), name
    constants = base.contexts(noise(1, 3, 16)).conditional
    assert all(x.dtype == torch.bfloat16 for layer in constants.layers.values() for x in layer)


def test_a_device_that_the_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_named("CPU") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_named(name) for name in (None, "cuda:1", "cpu")] == ["cuda", "cuda:1", "cpu"]
    for name in ("cuda:2", "cuda:x", "mps"):
        with pytest.raises(ValueError, match=f"--device {name}: this machine has cpu, cuda:0, cuda:1"):
            device_named(name)


def test_an_unknown_precision_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="precision 'half' is unknown; choose one of fp32, bf16, fp16"):
        Runtime("half")


def test_a_failing_compiler_warns_once_and_the_model_runs_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Any, **_: Any) -> Any:
        def run(*arguments: Any) -> Any:
            raise RuntimeError("no C++ compiler\nand a long trace")

        return run

    base = small_base()
    expected = sampled(base, 2)
    monkeypatch.setattr(torch, "compile", broken)
    prepare(base, Runtime(compile=True))
    with pytest.warns(UserWarning, match=r"torch.compile failed \(RuntimeError: no C.. compiler\)") as caught:
        assert torch.equal(sampled(base, 2), expected)
    messages = [str(warning.message) for warning in caught if "compile" in str(warning.message)]
    assert len(messages) == 1 and "\n" not in messages[0]


def test_what_is_compiled_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def compiled(function: Any, **options: Any) -> Any:
        made.append(f"{function.__name__} {options['mode']}")
        return function

    base = small_base()
    expected = sampled(base, 2)
    monkeypatch.setattr(torch, "compile", compiled)
    prepare(base, Runtime(compile=True))
    assert torch.equal(sampled(base, 2), expected) and made == ["whole default", "shallow default"]


def test_outputs_are_copied_out_of_a_cuda_graphs_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph writes every result to one place; what a solver keeps of it must not change."""
    place = torch.zeros(2)

    def graph(function: Any, **_: Any) -> Any:
        return lambda x: place.copy_(function(x))

    monkeypatch.setattr(torch, "compile", graph)
    run = Compiled(graphs=True)
    first, second = (run(torch.square, torch.full((2,), float(i))) for i in (2, 3))
    assert first.tolist() == [4, 4] and second.tolist() == [9, 9]
