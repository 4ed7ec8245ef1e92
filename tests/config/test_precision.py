"""bf16 runs where the device has it; on other devices training and sampling use fp32, and say why."""

from __future__ import annotations

import warnings

import pytest
import torch

from ldm.config import build
from ldm.config.schema import load_config

ASKED = ["train.precision=bf16-mixed", "sample.precision=bf16", "train.accelerator=cpu"]


def precisions() -> tuple[str, str]:
    """Of training and of sampling, as the settings ask for bf16 on a CPU."""
    config = load_config(None, ASKED)
    return build.training_run_of(config).loop.precision, build.runtime_of(config, "cpu").precision


def test_without_bf16_instructions_both_run_in_fp32_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "bf16_works", lambda device: False)
    with pytest.warns(UserWarning, match="no bf16 instructions") as caught:
        assert precisions() == ("32-true", "fp32")
    lines = [str(each.message) for each in caught]
    assert len(lines) == 2 and lines[0].startswith("precision bf16-mixed runs as 32-true: this cpu has no")
    assert all("about 100 times slower" in line and "\n" not in line for line in lines)


def test_with_them_it_stays_as_asked_and_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "bf16_works", lambda device: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert precisions() == ("bf16-mixed", "bf16")


@pytest.mark.parametrize("asked", ["32-true", "16-mixed", "fp32", "fp16"])
def test_other_precisions_are_not_looked_at(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setattr(build, "bf16_works", lambda device: pytest.fail("asked"))
    assert build.usable_precision(asked, "cpu", "full") == asked


def test_each_device_is_asked_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        """torch.ops without oneDNN."""

    class With:
        class mkldnn:
            _is_mkldnn_bf16_supported = staticmethod(lambda: True)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch, "ops", With)
    assert build.bf16_works("cpu") and not build.bf16_works("cuda:0") and build.bf16_works("mps")
    monkeypatch.setattr(torch, "ops", Without)
    assert not build.bf16_works("cpu")


@pytest.mark.parametrize(
    ("accelerator", "device"), [("cpu", "cpu"), ("mps", "mps"), ("auto", "cuda"), ("gpu", "cuda")]
)
def test_lightnings_accelerator_stands_for_a_device(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert build.device_of(accelerator) == device
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert build.device_of("auto") == "cpu"


def test_a_dataclass_takes_its_fields_by_name_from_sections() -> None:
    config = load_config(None, ["train.seed=7", "train.lr=0.5", "data.augment=false", "data.workers=3"])
    run = build.training_run_of(config)
    assert (run.samples.seed, run.tuning.lr, run.samples.augment, run.loop.workers) == (7, 0.5, False, 3)
    with pytest.raises(AssertionError, match=r"no section has LoopOptions\.batch_size"):
        build.from_sections(type(run.loop), config.data)
