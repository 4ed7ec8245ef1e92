"""The settings that pages show, and what a request's settings mean."""

from __future__ import annotations

import pytest

from ldm.config.loader import ROOT
from ldm.config.schema import load_config
from ldm.studio.settings import changed, shown_settings

MINI = load_config(ROOT / "configs/mini.yaml")
PAPER = load_config(ROOT / "configs/v.yaml")


def entries(config: object, page: str) -> dict[str, dict]:
    return {entry["key"]: entry for entry in shown_settings(config)[page]}  # type: ignore[arg-type]


def test_entries_have_the_values_of_the_config() -> None:
    found = entries(PAPER, "insert")
    steps = found["sample.steps"]
    assert steps["default"] == PAPER.sample.steps and steps["type"] == "int" and steps["min"] == 1
    assert steps["group"] == "main" and found["sample.sampler"]["choices"] == [
        "plms",
        "ddim",
        "dpm++",
        "unipc",
    ]
    assert found["sample.second_pass"]["max"] == 1 and found["mask.fill_holes"]["type"] == "bool"
    for config in (PAPER, MINI):
        assert 5 <= sum(entry["group"] == "main" for entry in entries(config, "insert").values()) <= 12
    assert entries(MINI, "learn")["train.max_steps"]["default"] == MINI.train.max_steps


def test_a_base_without_composites_has_no_settings_of_them() -> None:
    composite = {"insert.keep_scene", "sample.detail_transfer"}
    assert composite <= entries(MINI, "insert").keys()
    assert not composite & entries(PAPER, "insert").keys()


def test_a_base_that_takes_one_step_has_no_settings_of_several() -> None:
    several = {"sample.steps", "sample.sampler", "sample.deep_cache_interval", "sample.second_pass"}
    assert several <= entries(PAPER, "insert").keys() and not several & entries(MINI, "insert").keys()


def test_only_what_differs_is_given() -> None:
    default = MINI.sample.guidance_scale
    given = {"sample.guidance_scale": default, "insert.roi_factor": 3}
    assert changed(MINI, given, "insert") == ["insert.roi_factor=3"]
    assert changed(PAPER, {"mask.fill_holes": True, "sample.guidance_interval": "0.1,1"}, "insert") == [
        "mask.fill_holes=true", "sample.guidance_interval=0.1,1"
    ]  # fmt: skip
    for key in ("insert.outdir", "base.path", "train.logdir", "nonsense"):
        with pytest.raises(ValueError, match="unknown setting"):
            changed(MINI, {key: "x"}, "insert")
