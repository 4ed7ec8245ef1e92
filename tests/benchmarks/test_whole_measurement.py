"""The whole measurement on a small base: every group, kept on disk, not done twice; the report reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import plan
from benchmarks.learning import Lean
from benchmarks.loading import starting
from benchmarks.measure import Row
from benchmarks.plan import Measured, Subject, measure
from benchmarks.report import report
from benchmarks.subjects import Plain, fill, make_base, make_scene
from ldm.config.loader import ROOT
from ldm.insertion.inpaint import Sampling
from ldm.insertion.insert import InsertOptions
from ldm.models.base import save_base
from ldm.models.runtime import Runtime, inference_copy
from ldm.speed.deep_cache import DeepCache
from tests.fixtures.small import SMALL, small_base

PRESETS = {
    "exact": InsertOptions(Sampling("plms", 2)),
    "fast": InsertOptions(
        Sampling("unipc", 2, guidance_interval=(0.1, 1)), predictor=lambda model, _: DeepCache(model, 2)
    ),
}
GROUPS = {
    "UNet step", "whole insertion", "VAE", "growth with objects", "training step", "training by preset",
    "load",
}  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measure.MATRIX", {"cpu": 64})
    monkeypatch.setattr(
        plan, "starting", lambda config, device: []
    )  # another process, and seconds of imports


@pytest.mark.slow  # bf16, which many processors emulate
@pytest.mark.usefixtures("quick")
def test_every_group_is_measured_once_and_kept(tmp_path: Path) -> None:
    save_base(small_base(), tmp_path / "base")
    lean = {"8gb": Lean(1, True), "24gb": Lean(2, False)}
    files = (tmp_path / "small.yaml", PRESETS, SMALL, tmp_path / "base")
    subject = Subject("mini", *files, side=32, repeats=1, lean=lean)
    told: list[str] = []
    measure(subject, "cpu", Measured(tmp_path / "b.json", {"GPU": "none"}), told.append)
    assert {line.removeprefix("mini, cpu: ") for line in told} == GROUPS | {"start"}
    told.clear()
    again = Measured(tmp_path / "b.json", {"GPU": "none"})
    measure(subject, "cpu", again, told.append)
    assert told == ["mini, cpu: start"] and {row["group"] for row in again.rows} == GROUPS
    step = {row["name"]: row for row in again.rows if row["group"] == "UNet step"}
    tflop = [step[f"{name}, fp32"]["tflop"] for name in ("without cross-attention", "folded", "plain")]
    assert tflop == sorted(set(tflop)), "what nothing can be below, ours, plain"
    assert step["folded, bf16, DeepCache step"]["tflop"] < step["folded, bf16"]["tflop"]

    names = [row["name"] for row in again.rows if row["group"] == "training by preset"]
    assert names == ["--preset 8gb: batch 1, gradient checkpointing", "--preset 24gb: batch 2"]

    text = report(json.loads((tmp_path / "b.json").read_text()), "python scripts/benchmark.py")
    assert all(f"## {group}: mini, 32 px, cpu" in text for group in GROUPS)
    with pytest.raises(ValueError, match="another machine"):
        Measured(tmp_path / "b.json", {"GPU": "some"})


@torch.no_grad()
def test_synthetic_weights_are_all_there_and_keep_numbers_finite() -> None:
    base = make_base(SMALL, None, "cpu")
    assert not any(x.is_meta for x in [*base.parameters(), *base.buffers()])
    scene = make_scene(base, 32)
    x, context = scene.x_T, base.context(torch.zeros(1, 3, 28, 28))
    assert base.eps(x, torch.tensor(500), x, x[:, :1], context).isfinite().all()
    assert base.decode(base.encode(scene.image)).isfinite().all()


def test_plain_is_what_folded_gives() -> None:
    base = small_base()
    scene, options = make_scene(base, 32), {"sampler": "dpm++", "steps": 3}
    plain = fill(Plain(base, "fp32"), base, scene, scene.contexts, **options)
    ours = inference_copy(base, Runtime())
    assert torch.allclose(fill(ours, base, scene, ours.folded(*scene.contexts), **options), plain, atol=1e-4)


@torch.no_grad()
def test_plain_runs_the_unet_of_a_base_that_predicts_a_change() -> None:
    base = small_base(prediction="change")
    scene = make_scene(base, 32)
    x = scene.x_T
    plain = Plain(base, "fp32").eps(x, torch.tensor(999), x, x[:, :1], scene.contexts.conditional)
    assert plain.shape == x.shape


def row(group: str, name: str, seconds: float, samples: int = 1, device: str = "cpu") -> Row:
    times = {"seconds": seconds, "least": seconds, "most": seconds, "repeats": 1}
    place = {"group": group, "name": name, "base": "mini", "device": device, "side": 128}
    return place | times | {"samples": samples, "precision": "fp32", "tflop": 0.0, "peak_gb": None}


def test_a_line_compares_samples_with_the_first_row_and_with_the_matrix_rate() -> None:
    rows = [
        row("training step", "as in the paper: fp32", 2.0),
        row("training step", "cached_samples, tokens, bf16, batch 8", 1.0, samples=8) | {"tflop": 0.5},
    ]
    measured = {"machine": {"GPU": "none"}, "rates": {"cpu": {"fp32": 1e12}}, "rows": rows}
    lines = [line.split("|") for line in report(measured, "x").splitlines() if " x | " in line]
    assert [[cell.strip() for cell in line[3:7]] for line in lines] == [
        ["1.00 x", "0.5", "", ""],
        ["16.00 x", "8", "0.5", "50%"],
    ]


def test_the_start_of_an_insertion_ends_at_the_first_step_of_the_unet() -> None:
    [case] = starting(ROOT / "configs/mini.yaml", "cpu")
    case.run()  # CalledProcessError if the UNet was not run
