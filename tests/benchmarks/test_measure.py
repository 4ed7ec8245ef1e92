"""Timing: cases in turns, medians of what was timed, FLOPs and memory of what was run."""

from __future__ import annotations

import time

import pytest
import torch

from benchmarks.measure import Case, compare, matrix_rate


def test_cases_take_turns_behind_a_first_round() -> None:
    ran: list[str] = []
    cases = [Case(name, lambda name=name: ran.append(name), counted=name == "a") for name in "ab"]
    rows = compare("group", cases, 3, "cpu")
    assert "".join(ran) == "aabb" + "ab" * 3
    assert [(row["group"], row["name"], row["repeats"]) for row in rows] == [
        ("group", "a", 3),
        ("group", "b", 3),
    ]


def test_the_median_is_that_of_the_repeats() -> None:
    pauses = iter([0.0, 0.0, 0.001, 0.08, 0.03])  # the first two are not counted
    row = compare("group", [Case("a", lambda: time.sleep(next(pauses)), counted=False)], 3, "cpu")[0]
    assert row["least"] < row["seconds"] < row["most"] and row["seconds"] == pytest.approx(0.03, abs=0.02)


def test_flops_and_memory_are_those_of_a_run() -> None:
    a, q = torch.ones(64, 32), torch.ones(1, 2, 16, 8)
    attention = Case("attention", lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    big = Case("big", lambda: torch.ones(10**8).sum(), holds=lambda: 10**9)
    matrix, attended, large = compare("group", [Case("matrix", lambda: a.T @ a), attention, big], 1, "cpu")
    assert matrix["tflop"] * 1e12 == 2 * 32 * 64 * 32 and attended["tflop"] * 1e12 == 2 * 2 * 2 * 16 * 16 * 8
    assert large["peak_gb"] is None or 1.3 < large["peak_gb"] < 1.9


def test_what_a_case_sets_up_once_is_not_held_twice() -> None:
    kept: list[torch.Tensor] = []

    def run() -> None:
        if not kept:
            kept.append(torch.ones(10**8))  # as weights that are packed at the first step

    [row] = compare("group", [Case("a", run, holds=lambda: kept[0].nbytes, counted=False)], 1, "cpu")
    assert row["peak_gb"] is None or 0.39 < row["peak_gb"] < 0.5


def test_the_matrix_rate_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measure.MATRIX", {"cpu": 128})
    assert 0 < matrix_rate(torch.float32, "cpu", 2) < 1e15
