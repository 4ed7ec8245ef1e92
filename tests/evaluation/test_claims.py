"""Claims are judged by intervals: one of a difference must be clear of zero, one of equality must not be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ldm.evaluation.ablations import PSNR, Claim, ablations
from ldm.evaluation.report import Interval
from ldm.evaluation.reproduction_report import BenchmarkResults, write_results


@pytest.mark.parametrize(
    ("low", "high", "better", "equal"),
    [
        (0.1, 0.3, "holds", "does not hold"),
        (-0.3, -0.1, "does not hold", "does not hold"),
        (-0.1, 0.3, "undecided", "not significantly different"),
    ],
)
def test_a_verdict_goes_by_the_interval(low: float, high: float, better: str, equal: str) -> None:
    apart = Interval((low + high) / 2, low, high, 5)
    assert Claim("", "a", "b").verdict(apart, "v2/identity") == better
    assert Claim("", "a", "b", equal=True).verdict(apart, "v2/identity") == equal
    few = replace(apart, count=4)
    assert Claim("", "a", "b").verdict(few, "v2/identity") == "too few objects"


def test_equality_is_told_in_identity_and_where_there_is_a_truth_in_psnr(tmp_path: Path) -> None:
    chosen = ablations(
        freeze_model="crossattn",
        max_steps=800,
        sampler="dpm++",
        steps=16,
        guidance_scale=5.0,
        cached_samples=384,
    ).of(["tokens-crossattn", "tokens-crossattn-no-cached-samples"])
    values = {"tokens-crossattn": (0.1, 3.0), "tokens-crossattn-no-cached-samples": (0.0, 0.5)}
    rows = {
        name: [
            {"name": f"cup/{i}", "object": f"cup{i}", "method": name, "scores": scores}
            for i in range(6)
            for scores in [{"v2/identity": 0.5 + (-1) ** i * identity, PSNR: 10 + psnr}]
        ]
        for name, (identity, psnr) in values.items()
    }
    text = write_results(tmp_path, [BenchmarkResults("cups", rows, 2, 2, {})], chosen, []).read_text("utf-8")
    identity, psnr = (line for line in text.splitlines() if line.startswith("| ours: cached samples cost"))
    assert "v2: identity" in identity and identity.endswith("| not significantly different |")
    assert "PSNR" in psnr and "+2.500 [+2.500, +2.500] | does not hold |" in psnr
