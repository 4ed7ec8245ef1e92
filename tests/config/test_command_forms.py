"""Command lines in other forms: flags of the published code, defaults that give way."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldm.config.cli import (
    PUBLISHED_EXTRACTION,
    PUBLISHED_INFERENCE,
    PUBLISHED_TRAINING,
    Published,
    translated,
    with_defaults,
)
from ldm.config.inference_cli import GIVES_WAY, parser
from ldm.config.loader import ROOT
from ldm.config.parser import SettingsParser

SCRIPTS = (PUBLISHED_INFERENCE, PUBLISHED_TRAINING, PUBLISHED_EXTRACTION)


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("--plms", "--sampler plms"),
        ("--ddim_steps 50", "--steps 50"),
        ("--ddim-steps=50", "--steps 50"),
        ("--ddim_eta 0.0", ""),
        ("--fixed_code --steps 3", "--steps 3"),
        ("--n_iter 1", ""),
        ("--delta_ckpt d.ckpt --ckpt model.ckpt", "--object d.ckpt --base model.ckpt"),
        ("--image_path a.png --mask_path m.png", "--example_img a.png --mask m.png"),
        ("--reference_path r.png --id_dir o", "--reference r.png --dataset-dir o"),
        ("--point_ROI 1 2 3 4", "--roi 1 2 3 4"),
        ("--point_ROI roi.txt", "--roi roi.txt"),
        ("--bench b --list_dir ids.txt", "--bench b --list ids.txt"),
        ("--gpu_id 1", "--device cuda:1"),
        ("--skip_grid", "--no-contact_sheet"),
    ],
)
def test_a_flag_with_a_counterpart_means_it(line: str, ours: str) -> None:
    words = translated(line.split(), PUBLISHED_INFERENCE)
    assert words == ours.split()
    parser("").parse_config([*words, "--config", ""])  # every one is a flag of ours


@pytest.mark.parametrize(
    ("script", "line", "said"),
    [
        (PUBLISHED_INFERENCE, "--ddim_eta 0.3", "--sampler"),
        (PUBLISHED_INFERENCE, "--n_iter 3", "give --n_samples 3"),
        (PUBLISHED_INFERENCE, "--ckpt", "--ckpt: expected a value"),
        (PUBLISHED_INFERENCE, "--ckpt --plms", "--ckpt: expected a value"),
        (PUBLISHED_INFERENCE, "--plms=1", "--plms: expected no value"),
        (PUBLISHED_TRAINING, "--plms", "inference.sh"),
        (PUBLISHED_TRAINING, "--ddim_steps 50", "inference.sh"),
        (PUBLISHED_TRAINING, "--delta_ckpt d.ckpt", "--resume"),
        (PUBLISHED_EXTRACTION, "--ckpt model.ckpt", "--base model.ckpt"),
        (PUBLISHED_EXTRACTION, "--delta_ckpt d.ckpt", "--out d.ckpt"),
    ],
)
def test_a_flag_without_a_counterpart_is_answered_in_one_line(
    script: Published, line: str, said: str
) -> None:
    with pytest.raises(ValueError) as caught:
        translated(line.split(), script)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_training_goes_to_the_gpu_of_this_number_and_to_no_number_of_gpus() -> None:
    assert translated(["--gpu_id", "2"], PUBLISHED_TRAINING) == ["--accelerator", "gpu", "--devices", "2,"]


def test_no_flag_of_ours_is_taken_for_one_of_the_published_code_and_help_hides_them() -> None:
    ours = parser("")
    for name in PUBLISHED_INFERENCE:
        assert f"--{name}" not in ours._option_string_actions and f"--{name} " not in ours.format_help()
    assert "--default-" not in ours.format_help()
    words = ["--steps", "--list", "a.png", "seed", "sample.guidance_scale=2", "-1"]
    for script in SCRIPTS:
        assert translated(words, script) == words


DEFAULTS = [
    "--default-object", "logs/o", "--default-example_img", "table.jpg", "--default-mask", "table_mask.png",
    "--default-outdir", "outputs/o",
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("", "object example_img mask outdir"),
        ("--steps 3", "object example_img mask outdir"),
        ("--box 1 2 3 4", "object example_img outdir"),
        ("--mask_channel background", "object example_img outdir"),
        ("--mask-channel=background", "object example_img outdir"),
        ("mask.channel=background", "object example_img outdir"),
        ("--mask m.png", "object example_img outdir"),
        ("--example-img a.png --mask m.png", "object outdir"),
        ("--example_img=a.png", "object outdir"),
        ("--manifest w.csv", "object"),
        ("--bench b", "object outdir"),
        ("--scene s.yaml", ""),
        ("--replay r.png", "outdir"),
        ("--object o.safetensors", "example_img mask"),
    ],
)
def test_a_default_gives_way_to_what_says_otherwise(
    line: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = with_defaults([*DEFAULTS, *line.split()], GIVES_WAY)
    own = words[len(words) - len(line.split()) :]
    defaults = words[: len(words) - len(line.split())]
    assert own == line.split()
    assert [word.removeprefix("--") for word in defaults[::2]] == kept.split()
    assert all(value in DEFAULTS for value in defaults[1::2])


def test_a_default_gives_way_to_its_setting() -> None:
    parser = SettingsParser("Test.", {"outdir": "insert.outdir"}, "")
    given = ["--default-outdir", "outputs/demo", "insert.outdir=/tmp/mine"]
    assert parser.parse_config(given)[1].insert.outdir == "/tmp/mine"
    kept = parser.parse_config(given[:2])[1].insert.outdir
    assert Path(kept).resolve() == ROOT / "outputs/demo"
