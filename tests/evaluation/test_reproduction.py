"""The comparison is complete and says nothing twice; RESULTS.md says what the numbers say, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ldm.evaluation.methods import Method
from ldm.evaluation.report import Interval
from ldm.evaluation.reproduction import BenchmarkResults, Comparison, comparison, verdict, write_results

PLMS = {"sample.sampler": "plms", "sample.steps": 50}
PUBLISHED = [
    Method("paper-kv", "", learning={"max_steps": 80}, insertion=PLMS),
    Method("paper-crossattn", "", learning={"max_steps": 80, "freeze_model": "crossattn"}, insertion=PLMS),
]
FULL = comparison("tokens", "crossattn", PUBLISHED)
OTHER = {"v2/seconds": 2.0, "v2/perceptual_object": 1.5}


@pytest.mark.parametrize("few_shot", ["linear", "tokens", "none"])
@pytest.mark.parametrize("freeze_model", ["crossattn", "crossattn-kv"])
def test_tables_and_claims_are_of_methods_that_are_made(few_shot: str, freeze_model: str) -> None:
    full = comparison(few_shot, freeze_model, PUBLISHED)
    told = {name for names in full.tables.values() for name in names}
    assert told == set(full.methods) and full.recipe in told
    assert {x for claim in full.claims for x in (claim.better, claim.worse)} <= told
    assert all(name == method.name for name, method in full.methods.items())


def test_no_two_methods_do_the_same() -> None:
    done = [
        (v.kind, sorted(v.learning.items()), sorted(v.insertion.items()), v.images, v.same_category)
        for v in FULL.methods.values()
    ]
    assert len({str(x) for x in done}) == len(done)


def test_a_choice_keeps_what_it_can_tell() -> None:
    few = FULL.of(["paper-zero-shot", "paper-kv", "paper-none-kv"])
    assert list(few.tables) == ["The paper's recipe"]
    assert [claim.worse for claim in few.claims] == ["paper-zero-shot", "paper-none-kv"]
    names = ["zero-shot", "linear-kv", "tokens-crossattn"]  # the table of same-category pictures adds nothing
    assert list(FULL.of(names).tables) == ["Methods"]
    assert "Same-category pictures" in FULL.of([*names, "linear-kv-alone"]).tables
    with pytest.raises(ValueError, match="no method linear-kw; there are flat, poisson"):
        FULL.of(["linear-kw"])


@pytest.mark.parametrize(
    ("low", "high", "count", "told"),
    [
        (0.1, 0.3, 5, "holds"),
        (-0.3, -0.1, 5, "does not hold"),
        (-0.1, 0.3, 5, "undecided"),
        (0.1, 0.3, 4, "too few objects"),
    ],
)
def test_a_verdict_goes_by_the_interval(low: float, high: float, count: int, told: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high, count), "v2/identity") == told


def rows(
    values: Mapping[str, Sequence[float]], measure: str = "v2/identity", each: int = 1
) -> dict[str, list[dict]]:
    return {
        name: [
            {"name": f"cup/{i}", "object": f"cup{i // each}", "method": name, "scores": {measure: x, **OTHER}}
            for i, x in enumerate(found)
        ]
        for name, found in values.items()
    }


def written(
    folder: Path, values: Mapping[str, Sequence[float]], measure: str = "v2/identity", each: int = 1
) -> str:
    found = BenchmarkResults(
        "cups", rows(values, measure, each), len(values), 9, {"linear-kv": {"paper/clip_fid": 12.5}}
    )
    chosen: Comparison = FULL.of(list(values))
    return write_results(folder, [found], chosen, ["A note."]).read_text("utf-8")


def test_claims_are_judged_paired(tmp_path: Path) -> None:
    """Far apart from image to image, but always better by a little."""
    spread = [0.1, 0.5, 0.9, 0.3, 0.7]
    values = {
        "none-kv": spread,
        "linear-kv": [x + 0.02 for x in spread],
        "zero-shot": [x + 0.1 for x in spread],
    }
    text = written(tmp_path, values)
    lines = [line for line in text.splitlines() if line.startswith("| ours, `linear`")]
    identity = {line.split(" | ")[1]: line for line in lines if "identity" in line}
    assert "| 5 | +0.020 [+0.020, +0.020] | holds |" in identity["linear-kv - none-kv"]
    assert "does not hold" in identity["linear-kv - zero-shot"]
    perceptual = next(line for line in lines if "LPIPS-like" in line)
    assert "| 5 | +0.000 [+0.000, +0.000] | undecided |" in perceptual
    assert "A note." in text and "3 of 9 runs" in text


def test_less_is_better_where_a_measure_says_so(tmp_path: Path) -> None:
    closer = rows({"linear-kv": [0.4] * 5, "none-kv": [0.4] * 5})
    for row in closer["linear-kv"]:
        row["scores"] |= {"v2/perceptual_object": 1.2}
    found = BenchmarkResults("cups", closer, 2, 2, {})
    text = write_results(tmp_path, [found], FULL.of(list(closer)), []).read_text("utf-8")
    assert "v2: LPIPS-like object | 5 | -0.300 [-0.300, -0.300] | holds |" in text


def test_images_of_one_object_are_no_evidence_of_their_own(tmp_path: Path) -> None:
    """Ten images in which one is always better, of two objects: none to tell; of five: by their means."""
    first = [0.1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.1, 0.2]
    better = [x + gain for x, gain in zip(first, [0.3, 0.3, 0.1, 0.1, 0, 0.2, 0.1, 0.1, 0.2, 0], strict=True)]
    two = written(tmp_path, {"none-kv": first, "linear-kv": better}, each=5)
    assert "| 2 | +0.140 [+0.120, +0.160] | too few objects |" in two
    five = written(tmp_path, {"none-kv": first, "linear-kv": better}, each=2)
    assert "| 5 | +0.140 [" in five and "] | holds |" in five


def test_without_truth_the_views_decide_and_numbers_of_sets_are_shown(tmp_path: Path) -> None:
    text = written(tmp_path, {"none-kv": [0.1, 0.2], "linear-kv": [0.3, 0.4]}, "v2/identity_mean")
    assert "linear-kv - none-kv | v2: identity, mean of views | 2 |" in text and "paper: CLIP-FID" in text
    line = next(line for line in text.splitlines() if line.startswith("| linear-kv |"))
    assert line.endswith(" 12.50 |")


def test_nothing_done_is_said(tmp_path: Path) -> None:
    file = write_results(tmp_path, [BenchmarkResults("cups", {}, 0, 7, {})], FULL, [])
    assert "0 of 7 runs" in file.read_text() and "Claims" not in file.read_text()
