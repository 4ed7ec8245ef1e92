"""Which score is best, why, and when nothing improves any more."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ldm.validation.score import (
    ValidationScore,
    best,
    highest,
    read_scores,
    reason,
    significantly_worse,
    since_highest,
    write_scores,
)


def scored(step: int, *scores: float, copying: float = 0.0) -> ValidationScore:
    return ValidationScore(step, sum(scores) / len(scores), 1.0, copying, scores)


def test_in_doubt_the_longer_learnt_is_best() -> None:
    top = scored(20, 0.5, 0.3, 0.4)
    doubtful, clear = scored(30, 0.3, 0.5, 0.37), scored(40, 0.4, 0.2, 0.31)
    assert best([scored(10, 0.1, 0.1, 0.1), top, doubtful, clear]) is doubtful
    assert best([top, clear]) is top
    assert highest([top, doubtful, clear]) is top


def test_worse_is_decided_region_by_region() -> None:
    """The same means: once all regions agree, once one of them decides."""
    assert significantly_worse(scored(2, 0.1, 0.5, 0.8), scored(1, 0.2, 0.6, 0.9))
    assert not significantly_worse(scored(2, 0.2, 0.6, 0.6), scored(1, 0.2, 0.6, 0.9))
    assert significantly_worse(scored(2, 0.1), scored(1, 0.2)) and not significantly_worse(
        scored(2, 0.2), scored(1, 0.2)
    )


def test_what_was_never_learnt_is_not_the_best() -> None:
    before, after = scored(0, 0.9, 0.9), scored(10, 0.1, 0.2)
    assert best([before, after]) is after and highest([before, after]) is after
    assert "before training: score 0.900" in reason([before, after])


def test_idle_counts_from_the_record() -> None:
    run = [scored(0, 0.9), scored(1, 0.2), scored(2, 0.5), scored(3, 0.4), scored(4, 0.5)]
    assert [since_highest(run[: n + 1]) for n in range(1, 5)] == [0, 0, 1, 2]


def test_the_reason_names_the_highest_score_where_it_is_another() -> None:
    run = [scored(20, 0.5, 0.3), scored(30, 0.3, 0.45)]
    assert reason(run[:1]).startswith("step 20: score 0.400 (identity 0.400, seam 1.00, copying +0.000), the")
    assert reason(run).startswith("step 30:") and "not significantly worse than step 20 with 0.400" in reason(
        run
    )
    assert "copying" not in reason([scored(1, 0.2, copying=math.nan)])


def test_scores_are_read_from_the_file_up_to_a_step(tmp_path: Path) -> None:
    run = [scored(step, 0.1 * step, 0.25, copying=-0.125) for step in (0, 5, 10)]
    write_scores(tmp_path, run)
    assert read_scores(tmp_path, 10) == run and read_scores(tmp_path, 9) == run[:2]
    assert read_scores(tmp_path / "none", 9) == []
    assert (tmp_path / "validation.csv").read_text().splitlines()[1] == "0,0.125,0.125,1.0,-0.125,0.0 0.25"


@pytest.mark.parametrize("copying", [math.nan, 0.5])
def test_unknown_numbers_survive_the_file(tmp_path: Path, copying: float) -> None:
    write_scores(tmp_path, [scored(1, 0.5, copying=copying)])
    found = read_scores(tmp_path, 1)[0].copying
    assert found == copying or (math.isnan(found) and math.isnan(copying))
