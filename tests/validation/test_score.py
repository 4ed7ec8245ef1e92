"""Which verdict is best, why, and when nothing improves any more."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ldm.validation.score import (
    ValidationScore,
    best,
    clearly_worse,
    idle,
    read_scores,
    reason,
    record,
    write_scores,
)


def verdict(step: int, *scores: float, copying: float = 0.0) -> ValidationScore:
    return ValidationScore(step, sum(scores) / len(scores), 1.0, copying, scores)


def test_in_doubt_the_longer_learnt_is_best() -> None:
    highest = verdict(20, 0.5, 0.3, 0.4)
    doubtful, clear = verdict(30, 0.3, 0.5, 0.37), verdict(40, 0.4, 0.2, 0.31)
    assert best([verdict(10, 0.1, 0.1, 0.1), highest, doubtful, clear]) is doubtful
    assert best([highest, clear]) is highest
    assert record([highest, doubtful, clear]) is highest


def test_worse_is_judged_region_by_region() -> None:
    """The same means: once all regions agree, once one of them decides."""
    assert clearly_worse(verdict(2, 0.1, 0.5, 0.8), verdict(1, 0.2, 0.6, 0.9))
    assert not clearly_worse(verdict(2, 0.2, 0.6, 0.6), verdict(1, 0.2, 0.6, 0.9))
    assert clearly_worse(verdict(2, 0.1), verdict(1, 0.2)) and not clearly_worse(
        verdict(2, 0.2), verdict(1, 0.2)
    )


def test_what_was_never_learnt_is_not_the_best() -> None:
    before, after = verdict(0, 0.9, 0.9), verdict(10, 0.1, 0.2)
    assert best([before, after]) is after and record([before, after]) is after
    assert "before learning: score 0.900" in reason([before, after])


def test_idle_counts_from_the_record() -> None:
    run = [verdict(0, 0.9), verdict(1, 0.2), verdict(2, 0.5), verdict(3, 0.4), verdict(4, 0.5)]
    assert [idle(run[: n + 1]) for n in range(1, 5)] == [0, 0, 1, 2]


def test_the_reason_names_the_record_where_it_is_another() -> None:
    run = [verdict(20, 0.5, 0.3), verdict(30, 0.3, 0.45)]
    assert reason(run[:1]).startswith("step 20: score 0.400 (identity 0.400, seam 1.00, copying +0.000), the")
    assert reason(run).startswith("step 30:") and "not clearly worse than step 20 with 0.400" in reason(run)
    assert "copying" not in reason([verdict(1, 0.2, copying=math.nan)])


def test_verdicts_come_back_from_the_file_up_to_a_step(tmp_path: Path) -> None:
    run = [verdict(step, 0.1 * step, 0.25, copying=-0.125) for step in (0, 5, 10)]
    write_scores(tmp_path, run)
    assert read_scores(tmp_path, 10) == run and read_scores(tmp_path, 9) == run[:2]
    assert read_scores(tmp_path / "none", 9) == []
    assert (tmp_path / "judged.csv").read_text().splitlines()[1] == "0,0.125,0.125,1.0,-0.125,0.0 0.25"


@pytest.mark.parametrize("copying", [math.nan, 0.5])
def test_unknown_numbers_survive_the_file(tmp_path: Path, copying: float) -> None:
    write_scores(tmp_path, [verdict(1, 0.5, copying=copying)])
    found = read_scores(tmp_path, 1)[0].copying
    assert found == copying or (math.isnan(found) and math.isnan(copying))
