"""Settings: where they come from, which wins, and one clear line for every mistake."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from ldm.config.build import insert_options, make_fill, object_images, sampling_of, segmenter_digest
from ldm.config.cli import TRAINING, TRAINING_HELP
from ldm.config.inference_cli import parser as inference
from ldm.config.inference_cli import pixel_settings
from ldm.config.parser import SettingsParser
from ldm.config.process import run
from ldm.config.schema import Config, load_config
from ldm.models.architecture import Architecture
from ldm.pretrain.settings import PretrainConfig
from scripts.train import FLAGS as TRAIN_FLAGS

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
FLAGS = {
    "name": "train.name",
    "max-steps": "train.max_steps",
    "guidance_scale": "sample.guidance_scale",
    "sampler": "sample.sampler",
    "dataset-dir": "data.root",
}


def yaml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return path


def parsed(*argv: str, config: Path | str = "") -> Any:
    return SettingsParser("Test.", FLAGS, str(config)).parse_config(argv)[1]


def inference_parser() -> SettingsParser:
    return inference("Test.")


def train_parser() -> SettingsParser:
    return SettingsParser(
        "Test.", TRAIN_FLAGS, "configs/mini.yaml", presets=TRAINING, short_help=TRAINING_HELP
    )


def failure(capsys: pytest.CaptureFixture[str], *argv: str, config: Path | str = "") -> str:
    """What a script with these arguments says before it exits with 2."""
    with pytest.raises(SystemExit) as caught:
        run(lambda: parsed(*argv, config=config))
    out, error = capsys.readouterr()
    assert caught.value.code == 2 and out == ""
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_defaults_need_no_file() -> None:
    config = load_config(None)
    assert config == Config() and config.base.architecture == Architecture()
    assert config.train.freeze_model == "crossattn-kv" and config.sample.seed == 321


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().train.max_steps = 3  # type: ignore[misc]


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = yaml(
        tmp_path, "train: {lr: 1e-4, name: 7}\nbase:\n  architecture: {unet_channels: [32, 64]}\nsample:\n"
    )
    config = load_config(path)
    assert config.train.lr == 1e-4 and config.train.name == "7"
    assert config.base.architecture.unet_channels == (32, 64)
    assert config.sample == Config().sample, "a section with nothing below it"
    assert config.train.max_steps == Config().train.max_steps


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load_config(yaml(tmp_path, "# nothing\n")) == Config()


def test_later_sources_win(tmp_path: Path) -> None:
    path = yaml(tmp_path, "train: {max_steps: 1, seed: 1, name: file}")
    config = parsed("train.max_steps=2", "--max-steps", "3", "train.seed=2", config=path)
    assert (config.train.max_steps, config.train.seed, config.train.name) == (3, 2, "file")


@pytest.mark.parametrize(
    "argv",
    [
        ["--max-steps", "9"],
        ["--max_steps", "9"],
        ["--max-steps=9"],
        ["train.max_steps=9"],
        ["--guidance_scale", "2", "train.max_steps=9"],
    ],
)
def test_both_spellings_of_a_flag_and_settings_between_flags(argv: list[str]) -> None:
    assert parsed(*argv).train.max_steps == 9


@pytest.mark.parametrize("at", range(6))
def test_a_setting_may_stand_anywhere_even_behind_a_flag_that_takes_several_values(at: int) -> None:
    parser = SettingsParser("Test.", FLAGS, "")
    parser.add_argument("--files", nargs="+")
    words = ["--files", "a.png", "b=2", "--name", "x"]
    args, config = parser.parse_config([*words[:at], "train.max_steps=9", *words[at:]])
    assert args.files == ["a.png", "b=2"] and (config.train.max_steps, config.train.name) == (9, "x")


@pytest.mark.parametrize(
    "text", ["010", "1_000", "1e5", "null", "true", "[x]", "a=b", "a: b", "${x}", "", "ä #1"]
)
def test_text_stays_as_it_was_typed(text: str) -> None:
    """Read as YAML, the run 010 would be called 8."""
    assert parsed(f"--name={text}").train.name == text
    assert parsed(f"train.name={text}").train.name == text


@pytest.mark.parametrize(
    "setting, value",
    [
        ("sample.guidance_scale=3", 3.0),
        ("sample.guidance_scale=03", 3.0),
        ("sample.seed=010", 10),
        ("train.lr=1e-4", 1e-4),
        ("data.augment=false", False),
        ("base.architecture.unet_channels=[8,16]", (8, 16)),
        ("base.architecture.unet_attention=[true,false]", (True, False)),
    ],
)
def test_values_get_their_settings_type(setting: str, value: Any) -> None:
    found: Any = load_config(None, [setting])
    for name in setting.partition("=")[0].split("."):
        found = getattr(found, name)
    assert found == value and type(found) is type(value)


def test_numbers_of_a_file_are_decimal(tmp_path: Path) -> None:
    config = load_config(yaml(tmp_path, "train: {seed: 010, name: 010}"))
    assert (config.train.seed, config.train.name) == (10, "010")


@pytest.mark.parametrize(
    "setting, message",
    [
        ("train.max_step=3", "unknown setting 'train.max_step'; did you mean train.max_steps?"),
        ("trian.max_steps=3", "unknown setting 'trian'; did you mean train?"),
        ("base.architecture.unet_head=3", "did you mean base.architecture.unet_heads?"),
        ("qqq.max_steps=3", "unknown setting 'qqq'; there are base, data, train, sample, insert"),
        ("data.qqq=3", "unknown setting 'data.qqq'; there are data.root, data.augment, "),
        ("train.max_steps=many", "train.max_steps='many': expected a whole number"),
        ("train.max_steps=3.5", "train.max_steps=3.5: expected a whole number"),
        ("train.max_steps=true", "train.max_steps=True: expected a whole number"),
        ("train.max_steps=", "train.max_steps='': expected a whole number"),
        ("train.max_steps=1:30", "train.max_steps='1:30': expected a whole number"),
        ("train.max_steps=[3", "train.max_steps=[3: not readable: "),
        ("train.max_steps=0", "train.max_steps=0: expected 1 or more\n"),
        ("insert.feather=-5", "insert.feather=-5: expected -1 or more\n"),
        ("mask.threshold=1.5", "mask.threshold=1.5: expected 0 to 1\n"),
        ("sample.second_pass=.nan", "sample.second_pass=nan: expected 0 to 1\n"),
        ("sample.guidance_interval=0,2", "sample.guidance_interval=2: expected 0 to 1\n"),
        ("sample.guidance_scale=big", "sample.guidance_scale='big': expected a number"),
        ("data.augment=1", "data.augment=1: expected true or false"),
        (
            "base.architecture.unet_channels=[8,x]",
            "base.architecture.unet_channels='x': expected a whole number",
        ),
        ("sample.sampler=plm", "expected one of plms, ddim, dpm++, unipc; did you mean plms?\n"),
        ("sample.sampler=qqqqqq", "sample.sampler='qqqqqq': expected one of plms, ddim, dpm++, unipc\n"),
        ("train=3", "train is 3; expected settings: name, logdir, "),
        ("train.name.x=3", "train.name={'x': 3}: expected text"),
        (
            "train.max_steps",
            "'train.max_steps' is no setting; write section.key=value, like train.max_steps=400",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_remedy(
    capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    assert message in failure(capsys, setting)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--nam", "x"], "unrecognized arguments: --nam; did you mean --name?"),
        (["--max_step=3"], "unrecognized arguments: --max_step=3; did you mean --max"),
        (["--qqqqqqqq", "x"], "; there are --help, --help-all, --config, --name, "),
        (["--name"], "argument --name: expected one argument"),
        (["--name", "train.seed=3"], "argument --name: expected one argument"),
        (
            ["--sampler", "ddpm"],
            "sample.sampler='ddpm': expected one of plms, ddim, dpm++, unipc; did you mean d",
        ),
        (["--guidance_scale", "x"], "sample.guidance_scale='x': expected a number"),
    ],
)
def test_a_wrong_flag_is_one_line_with_the_remedy(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert message in failure(capsys, *argv)


@pytest.mark.parametrize(
    "text, message",
    [
        ("train: [1", "settings.yaml: not readable: while parsing a flow sequence"),
        ("train: {seed: 1}\ntrain: {seed: 2}", "settings.yaml: not readable: while constructing a mapping"),
        ("train: {name: '${data.nothing}'}", "settings.yaml: not readable: Interpolation key 'data.nothing'"),
        ("- a\n- b", "the config is ['a', 'b']; expected settings: base, data"),
        ("hello", "unknown setting 'hello'; there are base, data"),
        ("train: {nam: x}", "unknown setting 'train.nam'; did you mean train.name?"),
        ("5: 6", "unknown setting '5'; there are base"),
        ("train: " + "[" * 5000, "settings.yaml: not readable: nested too deeply"),
        ("train: &a [*a]", "settings.yaml: not readable: Circular reference detected"),
    ],
)
def test_a_broken_file_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str
) -> None:
    assert message in failure(capsys, config=yaml(tmp_path, text))
    assert message in failure(capsys, "train.seed=3", config=yaml(tmp_path, text))


def test_a_file_that_is_no_text_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_bytes(b"train: {name: caf\xe9}")
    message = failure(capsys, config=tmp_path / "settings.yaml")
    assert "settings.yaml: not readable as UTF-8 text: line 1" in message
    assert message.count("settings.yaml") == 1


def test_a_missing_file_names_those_there_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    message = failure(capsys, "--config", "configs/mni.yaml")
    assert "configs/mni.yaml: no such config; there are configs/mini.yaml, " in message


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("bad")])
def test_run_says_how_it_ended(capsys: pytest.CaptureFixture[str], error: Any) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main)
    expected = (130, "interrupted\n") if error is KeyboardInterrupt else (2, "error: bad\n")
    assert (caught.value.code, capsys.readouterr().err) == expected


def test_a_fault_of_the_program_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(lambda: print(1 // 0))
    error = capsys.readouterr().err
    assert caught.value.code == 70 and "Traceback" in error and "1 // 0" in error


def test_help_lists_every_flag_with_its_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0
    for flag, dotted in FLAGS.items():
        assert re.search(rf"--{flag} .*?\[{re.escape(dotted)}\]", text), flag
    assert "--max-steps" in text and "--config YAML" in text and "section.key=value" in text
    assert "(plms, ddim, dpm++, unipc)" in text, "choices are listed"


def test_help_names_every_setting_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help-all")
    text = capsys.readouterr().out
    for section in fields(Config):
        for f in fields(get_type_hints(Config)[section.name]):
            assert f.name == "architecture" or f"  {section.name}.{f.name}=" in text, f.name


@pytest.mark.parametrize("script", [inference_parser, train_parser])
def test_help_is_two_screens_and_hides_flags_that_still_work(
    script: Callable[[], SettingsParser], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = script()
    short, whole = parser.format_help(), parser.format_all()
    assert 20 < len(short.splitlines()) <= 60 and max(map(len, short.splitlines())) <= 100
    assert "--help-all" in short and "section.key=value" in short
    hidden = [flag for flag in parser.flags if f"--{flag} " not in short]
    assert len(hidden) > 10 and all(re.search(rf"--(\[no-\])?{flag}\b", whole) for flag in hidden)
    assert parser.parse_config(["--seed", "7"])[1] != parser.parse_config([])[1]


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("num_inference_steps", "steps"),
        ("num-inference-steps", "steps"),
    ],
)
def test_a_name_from_elsewhere_is_answered_with_the_flag(
    name: str, ours: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        inference_parser().parse_config([f"--{name}", "1"])
    error = capsys.readouterr().err
    assert error == f"error: unrecognized arguments: --{name}; did you mean --{ours}?\n"


def test_a_setting_named_as_elsewhere_is_answered_with_the_setting() -> None:
    with pytest.raises(
        ValueError, match=r"unknown setting 'sample\.scheduler'; did you mean sample\.sampler\?"
    ):
        load_config(None, ["sample.scheduler=1"])


def test_every_setting_is_explained() -> None:
    """Flags are made from any of them; --help has nothing else to say."""
    for section in fields(Config):
        for f in fields(get_type_hints(Config)[section.name]):
            assert f.name == "architecture" or f.metadata["help"], f.name
            choices = f.metadata.get("choices")
            assert not choices or f.default in choices, f.name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_loads(path: Path) -> None:
    if path.name.startswith("pretrain"):
        from scripts.pretrain import PretrainConfig

        schema: type = PretrainConfig
    else:
        schema = Config
    assert load_config(path, schema=schema) != schema(), "a file says what differs from the defaults"


@pytest.mark.parametrize(
    "name, freeze_model, steps", [("v", "crossattn-kv", 4000), ("v_virtual", "crossattn", 2000)]
)
def test_the_papers_settings(name: str, freeze_model: str, steps: int) -> None:
    config = load_config(ROOT / f"configs/{name}.yaml")
    assert config.base.architecture == Architecture(), "the defaults are Paint-by-Example's sizes"
    assert (config.train.freeze_model, config.train.max_steps) == (freeze_model, steps)
    s = config.sample
    assert (s.sampler, s.steps, s.guidance_scale, s.seed) == ("plms", 50, 5.0, 321)


def test_the_mini_base_is_small() -> None:
    a = load_config(ROOT / "configs/mini.yaml").base.architecture
    assert a.name == "mini" and len(a.unet_channels) == len(a.unet_attention)
    assert a.reference_size % a.clip_patch == 0 and a.image_size <= 256


def test_kept_settings_that_are_no_more_are_passed_over_but_not_in_a_users_file(tmp_path: Path) -> None:
    sample = {"strength": 0.8, "init_noise_sigma": 0.7, "show_scene": True, "contact_shadow": 0.3}
    old = {"train": {"mask_growth": 0.4, "max_steps": 7}, "sample": sample}
    assert load_config(old).train.max_steps == 7
    assert SettingsParser("Test.", FLAGS, "").parse_config([], old)[1] == load_config(old)
    for gamma, loss in ((0.0, "eps"), (5.0, "v")):  # of min-SNR weights
        assert load_config({"train": {"min_snr_gamma": gamma}}).train.loss == loss
    (tmp_path / "old.yaml").write_text("train:\n  mask_growth: 0.4\n")
    with pytest.raises(ValueError, match=r"unknown setting 'train\.mask_growth'"):
        load_config(tmp_path / "old.yaml")


def test_kept_settings_of_a_base_mean_what_they_meant(tmp_path: Path) -> None:
    """Bases from before `mask_antialias` read their masks antialiased."""
    kept = {"base": {"architecture": {"name": "mine"}}}
    assert load_config(kept).base.architecture.mask_antialias
    assert SettingsParser("Test.", FLAGS, "").parse_config([], kept)[1] == load_config(kept)
    (tmp_path / "mine.yaml").write_text("base:\n  architecture:\n    name: mine\n")
    assert not load_config(tmp_path / "mine.yaml").base.architecture.mask_antialias
    newer = {"base": {"architecture": {"mask_antialias": False}}}
    assert not load_config(newer).base.architecture.mask_antialias


@pytest.mark.parametrize("collage, fill", [(True, "composite"), (False, "grey")])
def test_kept_settings_of_a_base_of_collages_are_those_of_a_base_of_composites(
    collage: bool, fill: str
) -> None:
    old = {"base": {"path": "x", "architecture": {"name": "mini", "collage": collage}}}
    for config in (load_config(old), SettingsParser("Test.", FLAGS, "").parse_config([], old)[1]):
        assert (config.base.path, config.base.architecture.name) == ("x", "mini")
        assert config.base.region_fill == fill


def test_a_base_without_its_matting_network_is_told(tmp_path: Path) -> None:
    given = ["base.region_fill=composite", f"base.path={tmp_path}"]
    with pytest.warns(UserWarning, match=r"matting\.safetensors: no such file; .* cut out by GrabCut"):
        object_images(load_config(None, given))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        object_images(load_config(None, [*given, "base.segmenter=grabcut"]))


def test_what_only_a_base_of_composites_can_do_is_refused_for_others() -> None:
    for key in (
        "sample.detail_transfer=16",
        "insert.keep_scene=true",
    ):
        flag = key.split("=")[0].split(".")[1]
        with pytest.raises(ValueError, match=f"{flag}: needs a base that is shown a cut-out of the object"):
            make_fill(load_config(None, [key]))
        assert make_fill(load_config(None, [key, "base.region_fill=composite"]))
    with pytest.raises(
        ValueError, match=r"second_pass=0\.4 would replace the detail that detail_transfer=4 copies"
    ):
        insert_options(load_config(ROOT / "configs" / "mini.yaml", ["sample.second_pass=0.4"]))


def test_a_base_that_changes_what_it_is_shown_takes_one_step() -> None:
    file = ROOT / "configs" / "mini.yaml"
    with pytest.warns(UserWarning, match=r"sample\.steps=16: not used, this base changes what it is shown"):
        assert sampling_of(load_config(file, ["sample.steps=16"])).steps == 1
    assert sampling_of(load_config(file, ["sample.steps=16", "base.region_fill=grey"])).steps == 16
    with pytest.raises(ValueError, match=r"second_pass=0\.4: this base changes what it is shown in one step"):
        insert_options(load_config(file, ["sample.second_pass=0.4", "sample.detail_transfer=0"]))


def test_a_pretraining_keeps_the_same_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    given = ["logdir=runs", "pack.sources=~/pictures"]
    found = load_config(ROOT / "configs/pretrain_mini_gpu.yaml", given, PretrainConfig)
    assert (found.logdir, found.pack.sources) == (str(tmp_path / "runs"), str(tmp_path / "home/pictures"))
    assert (found.pack.file, found.export) == (
        str(ROOT / "cache/pack320.zip"),
        str(ROOT / "checkpoints/mini"),
    )
    assert found.sizes == found.start_from == str(ROOT / "configs/mini.yaml")


def test_outside_the_project_given_paths_are_the_users_and_defaults_the_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert load_config(Path("configs/mini.yaml"), ["data.root=cup"]).base.path == "checkpoints/mini"
    assert load_config(None, ["data.root=cup"]).data.root == "cup"
    monkeypatch.chdir(tmp_path)
    config = load_config(ROOT / "configs/mini.yaml", ["data.root=cup"])
    assert config.base.path == str(ROOT / "checkpoints/mini") and config.data.root == str(tmp_path / "cup")
    assert config.train.logdir == str(ROOT / "logs") and config.train.resume == ""
    own = load_config(yaml(tmp_path, "base: {path: own_base}"))  # a file of the user's
    assert own.base.path == str(tmp_path / "own_base") and own.insert.outdir == str(ROOT / "outputs")
    assert load_config({"base": {"path": "/model.ckpt"}}).base.path == "/model.ckpt"


def test_a_file_changes_what_it_extends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mini = ROOT / "configs/mini.yaml"
    (tmp_path / "own").mkdir()
    (tmp_path / "own/base.yaml").write_text(f"extends: {mini}\nsample:\n  steps: 9\n  seed: 5\ntrain:\n")
    (tmp_path / "own/mine.yaml").write_text("extends: base.yaml\nsample:\n  seed: 7\ndata:\n  root: toy\n")
    monkeypatch.chdir(tmp_path)
    config, below = load_config(tmp_path / "own/mine.yaml"), load_config(mini)
    assert (config.sample.steps, config.sample.seed) == (9, 7)
    assert config.train == below.train and config.base == below.base, (
        "paths of a file stay those of that file"
    )
    assert config.data.root == str(tmp_path / "toy")


@pytest.mark.parametrize(
    ("extends", "said"),
    [
        ("gone.yaml", "gone.yaml: no such config"),
        ("mine.yaml", "extends it in turn"),
        ("[a]", "name of a config"),
    ],
)
def test_what_cannot_be_extended_is_named(extends: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"extends: {extends}\n")
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        load_config(tmp_path / "mine.yaml")


def test_what_determines_pixels_of_a_base_is_part_of_a_results_key() -> None:
    file = ROOT / "configs/mini.yaml"
    before = pixel_settings(load_config(file))
    for change in ("base.region_fill=grey", "base.segmenter=grabcut", "base.architecture.prediction=v"):
        assert pixel_settings(load_config(file, [change])) != before, change
    for same in ("base.path=/elsewhere", "insert.outdir=/tmp", "sample.seed=7"):
        assert pixel_settings(load_config(file, [same])) == before, same


def test_so_is_the_network_that_cuts_out_objects(tmp_path: Path) -> None:
    config = load_config(ROOT / "configs/mini.yaml", [f"base.path={tmp_path}"])
    found = [segmenter_digest(config)]
    for content in (b"one", b"other"):
        (tmp_path / "matting.safetensors").write_bytes(content)
        found.append(segmenter_digest(config))
    assert found[0] == {} and len({*map(str, found)}) == 3
    for unused in ("base.segmenter=grabcut", "base.region_fill=grey"):
        assert segmenter_digest(load_config(ROOT / "configs/mini.yaml", [unused])) == {}


def test_a_setting_that_older_versions_had_is_left_out_with_a_warning() -> None:
    """Their runs keep it, and still resume and give their objects."""
    recipe = {"sample": {"steps": 7}, "insert": {"paste_mask": "m.png"}}
    with pytest.warns(UserWarning, match=r"setting insert\.paste_mask has no effect: older versions had it"):
        assert load_config(recipe) == load_config(None, ["sample.steps=7"])
