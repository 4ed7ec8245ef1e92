"""Command lines in other forms: flags of the published code, defaults that give way."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from lightning_fabric.utilities.device_parser import _normalize_parse_gpu_string_input

from ldm.config.cli import PUBLISHED, with_defaults
from ldm.config.inference_cli import GIVES_WAY, parser
from ldm.config.loader import ROOT
from ldm.config.objects_cli import COMMANDS
from ldm.config.parser import SettingsParser
from ldm.config.schema import Config, load_config


def test_flags_of_the_published_code_are_answered_with_ours(capsys: pytest.CaptureFixture[str]) -> None:
    ours = parser("")
    for name in PUBLISHED:
        assert f"--{name}" not in ours._option_string_actions
    for line in (["--plms", "--ddim_steps", "50"], ["--plms", "--ddim-steps=50"]):
        with pytest.raises(SystemExit):
            ours.parse_config(line)
        said = capsys.readouterr().err
        assert "--plms: here --sampler plms; --ddim_steps: here --steps" in said and said.count("\n") == 1


def test_what_is_suggested_is_a_flag_of_ours() -> None:
    known = parser("")._option_string_actions
    flags = [text for text in PUBLISHED.values() if not text.startswith("not needed (")]
    assert len(flags) == len(PUBLISHED) - 2 and all(text.split()[0] in known for text in flags)
    assert "--default-" not in parser("").format_help()


def test_the_number_of_a_gpu_is_not_a_count() -> None:
    """Lightning reads "1" as one GPU and "1," as GPU number 1."""
    for name in ("gpu_id", "gpus"):
        suggested = re.search(r"--devices '(.*)'", PUBLISHED[name])
        assert suggested is not None
        devices = load_config(ROOT / "configs/mini.yaml", [f"train.devices={suggested[1].replace('N', '1')}"])
        assert _normalize_parse_gpu_string_input(devices.train.devices) == [1]


TAKEN = {"ADDRESS", "FILE", "FOLDER", "IMAGE", "LOW", "N", "NAME", "PATH", "PICTURE", "TEXT", "X", "YAML"}


@pytest.mark.parametrize("line", [
    "benchmark", "evaluate", "get_deltas", "inference --help-all", "prepare", "pretrain", "reproduce",
    "studio", "train --help-all", *(f"objects {command}" for command in COMMANDS),
])  # fmt: skip
def test_help_says_what_each_flag_takes(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A kind, like FILE, N or X, rather than the flag's name in capitals."""
    script, *words = line.split()
    with pytest.raises(SystemExit):
        import_module(f"scripts.{script}").main([*words, "--help"])
    text = capsys.readouterr().out
    assert set(re.findall(r"--\w+[ =]([A-Z_]+)\b", text)) <= TAKEN and "settings file []" not in text
    if script in ("inference", "evaluate"):
        assert "--guidance_interval LOW,HIGH" in text and "X,X" not in text
        assert "sample.guidance_interval=0,1: LOW,HIGH" in text
        assert Config() == load_config(None, ["sample.guidance_interval=0,1"])


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
