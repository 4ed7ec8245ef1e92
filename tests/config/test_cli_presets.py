"""Presets: exact is the paper's sampling, fast all approximations, flags win over both."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from ldm.config.build import sampling_of
from ldm.config.inference_cli import parser
from ldm.config.process import run
from ldm.config.schema import Config, SampleSection
from ldm.insertion.inpaint import Sampling

WORK = ["--example_img", "a.png", "--mask", "b.png"]
APPROXIMATE = {
    "guidance_interval": (0.0, 1.0),
    "deep_cache_interval": 1,
    "precision": "fp32",
}  # their values that are none


def settings(*argv: str) -> SampleSection:
    return parser("Test.").parse_config([*WORK, *argv])[1].sample


def sampling(s: SampleSection) -> Sampling:
    return sampling_of(Config(sample=s))


def approximate(s: SampleSection) -> set[str]:
    return {name for name, plain in APPROXIMATE.items() if asdict(s)[name] != plain}


def test_approximations_are_off_by_default_and_in_exact_and_on_in_fast() -> None:
    assert approximate(Config().sample) == approximate(settings()) == set()
    assert approximate(settings("--preset", "exact", "sample.seed=1")) == set()
    assert approximate(settings("--preset", "fast")) == set(APPROXIMATE)
    assert settings("--preset", "fast").steps < settings("--preset", "exact").steps == 50


def test_what_is_given_wins_over_the_preset_and_the_preset_over_the_file() -> None:
    s = settings(
        "--preset",
        "fast",
        "--deep_cache_interval",
        "3",
        "sample.precision=fp16",
        "--guidance_interval",
        "0.2,0.7",
    )
    assert (s.deep_cache_interval, s.precision, s.guidance_interval) == (3, "fp16", (0.2, 0.7))
    assert s.sampler == "unipc" and settings().sampler != "unipc"


def test_exact_is_the_papers_sampling() -> None:
    """tests/models/test_sampler.py has the trajectory of these settings from the paper's code."""
    s = settings("--preset", "exact", "--guidance_scale", "5")
    assert s.sampler == "plms" and approximate(s) == set()
    assert sampling(s).schedule() == {"steps": 50, "guidance_scale": 5.0, "guidance_interval": (0.0, 1.0)}


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--preset", "quick"], "--preset: invalid choice: 'quick'"),
        (["--precision", "half"], "sample.precision='half': expected one of fp32, bf16, fp16"),
        (["--deep_cache_interval", "0"], "sample.deep_cache_interval=0: expected 1 or more"),
        (["--guidance_interval", "0.7,0.2"], "guidance_interval=[0.7, 0.2]: expected LOW,HIGH"),
        (["--guidance_interval", "0.7"], "guidance_interval=[0.7]: expected LOW,HIGH"),
        (["--guidance_interval", "low,high"], "sample.guidance_interval='low': expected a number"),
    ],
)
def test_a_wrong_value_is_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(lambda: sampling(settings(*argv)))
    error = capsys.readouterr().err
    assert caught.value.code == 2 and message in error and error.count("\n") == 1
