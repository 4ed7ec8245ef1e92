"""Tables hold means and intervals of the rows they are given; two runs are paired by name."""

import numpy as np
import pytest

from ldm.evaluation.metrics import MEASURES, bootstrap
from ldm.evaluation.report import (
    Interval,
    better,
    difference_table,
    differences,
    interval,
    markdown,
    over_objects,
    table,
)


def row(name: str, thing: str = "apple", method: str = "flat", **scores: float) -> dict:
    return {"name": name, "object": thing, "method": method, "model": "m1",
            "scores": {f"v2/{key}": value for key, value in scores.items()}}  # fmt: skip


ROWS = [row("a", identity=0.1, outside=0), row("b", identity=0.4, outside=3), row("c", "brick", identity=0.7)]


def test_there_is_a_line_for_each_method_and_one_for_each_object() -> None:
    head, line = table(ROWS)
    low, high = bootstrap([0.1, 0.4, 0.7])
    assert head[:4] == ["method", "model", "images", "v2: identity, to the truth"]
    assert line == ["flat", "m1", "3", f"0.400 [{low:.3f}, {high:.3f}]", "3"]  # the worst outside
    head, *found = table(ROWS, by_object=True)
    assert head[1] == "object" and [line[1:4:2] for line in found] == [["apple", "2"], ["brick", "1"]]
    assert [line[-1] for line in found] == ["3", "–"] and found[1][4] == "0.700 [0.700, 0.700]"
    assert table(ROWS[:2], by_object=True)[1:] == []  # one object: it is all
    both = table([*ROWS, row("a", method="ceiling", identity=1)])
    assert [line[0] for line in both[1:]] == ["flat", "ceiling"]


def test_a_difference_is_paired_by_image() -> None:
    draw = np.random.default_rng(0)
    level = draw.normal(0, 5, 60)  # images differ far more than runs
    ours = [row(str(i), identity=x + 0.5) for i, x in enumerate(level)]
    theirs = [row(str(i), identity=x + draw.normal(0, 0.2)) for i, x in enumerate(level)]
    theirs = [*theirs[::-1], row("alone", identity=99)]
    [found] = differences(ours, theirs, "v2/identity").values()
    assert len(found) == 60
    apart = interval(found)
    expected = [
        mine["scores"]["v2/identity"] - theirs[59 - i]["scores"]["v2/identity"] for i, mine in enumerate(ours)
    ]
    assert apart.mean == pytest.approx(np.mean(expected)) and (apart.low, apart.high) == bootstrap(expected)
    assert 0.4 < apart.low < apart.high < 0.6
    _, line = difference_table(ours, theirs)
    assert line[:2] == ["v2: identity, to the truth", "60"] and line[-1] == "this run" and "+0.5" in line[4]
    assert difference_table(ours, ours)[1][-1] == "undecided"
    assert difference_table(theirs, ours)[1][-1] == "other run"


def test_the_images_of_an_object_count_as_one() -> None:
    found = over_objects({"apple": [1.0, 3.0], "brick": [0.0]})
    assert (found.mean, found.count) == (1.0, 2)


def test_less_is_better_where_it_is() -> None:
    above = Interval(1.0, 0.5, 1.5, 9)
    assert better("v2/identity", above) == "this run" and better("v2/seam", above) == "other run"
    assert better("v2/seconds", above) == "–" and MEASURES["v2/seconds"].better == 0
    assert better("v2/seam", Interval(-1, -2, -0.1, 9)) == "this run"


def test_markdown_has_equal_lines() -> None:
    text = markdown([["a|b", "c"], ["1", "2"]]).splitlines()
    assert text == ["| a/b | c |", "| --- | ---: |", "| 1 | 2 |"]
