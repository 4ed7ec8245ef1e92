"""Numbers are decimal, dates are text, a key counts once, and what is not readable is one line."""

from typing import Any

import pytest
import yaml

from ldm.data.yaml_text import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", "010"), ("0", 0), ("-12", -12), ("1_000", 1000), ("1:30", "1:30"), ("0x1f", "0x1f"),
        ("1e-4", 1e-4), ("1.5", 1.5), ("-.5", -0.5), ("2.", 2.0), ("1:30.5", "1:30.5"),
        ("2024-13-45", "2024-13-45"),
        ("2024-01-01: 3", {"2024-01-01": 3}), ("yes", True), ("~", None), ("", None),
        ("{5: [a, 'b']}", {"5": ["a", "b"]}),
    ],
)  # fmt: skip
def test_values_are_those_that_people_mean(text: str, value: Any) -> None:
    found = parse_yaml(text)
    assert found == value and type(found) is type(value)


def test_anchors_may_be_merged_and_overridden() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}"
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "while parsing a flow"),
        ("a: 1\nb: {c: 1, c: 2}", "found the key 'c' twice"),
        ("a: 1\na: 2", "found the key 'a' twice"),
        ("[" * 5000, "nested too deeply"),
        ("&a [*a]", "Circular reference"),
        ("? [a, b]\n: 3", "unhashable key"),
        ("? !!timestamp 2024-01-01\n: 3", "keys must be str"),
        ("!!timestamp 2024-13-45", "month"),
    ],
)
def test_what_is_not_readable_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        parse_yaml(text)
    assert "\n" not in str(error.value)
