"""The reproduction end to end, on two pictures in InsertSet's layout: planned, run, stopped, resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ldm.config.process import run
from ldm.data.picture import read_rgb
from ldm.data.picture_write import embedded_text
from ldm.evaluation.run import MethodRun
from scripts import reproduce
from tests.evaluation.test_benchmark import backgrounds
from tests.fixtures.small import object_folder, written

CONFIGS = Path(__file__).parents[2] / "configs"
METHODS = [
    *("flat", "zero-shot", "none-kv", "linear-kv", "tokens-kv", "tokens-kv-1-images", "tokens-kv-5-images"),
    *("tokens-kv-alone", "paper-zero-shot", "paper-kv"),
]
LEARNT = {"none-kv", "linear-kv", "tokens-kv", "tokens-kv-alone", "tokens-kv-1-images", "paper-kv"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("efficientnet_lite_pytorch")
    folder = tmp_path_factory.mktemp("reproduce")
    written(folder)
    for name, file in (("paper", "paper.yaml"), ("virtual", "paper_virtual.yaml")):
        recipe = (CONFIGS / file).read_text()
        assert "  steps: 50\n" in recipe or "extends: paper.yaml\n" in recipe
        (folder / f"{name}.yaml").write_text(recipe.replace("  steps: 50\n", "  steps: 2\n"))
    object_folder(folder / "objects/cup")
    backgrounds(folder / "bench", 2)
    return folder


def call(folder: Path, *more: str) -> None:
    reproduce.main([
        "train.cached_samples=4", "--config", str(folder / "small.yaml"),
        "--benchmarks", str(folder / "objects"), "--backgrounds", str(folder / "bench"),
        "--out", str(folder / "out"), "--methods", *METHODS,
        "--max_steps", "1", "--sampler", "ddim", "--steps", "2", "--device", "cpu",
        "--published", str(folder / "paper.yaml"), str(folder / "virtual.yaml"), *more,
    ])  # fmt: skip


def test_the_plan_does_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(folder, "--plan", "--out", str(folder / "planned"))
    said = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in said) == sorted(METHODS)
    assert all("1 of   1 runs to do" in line for line in said)
    assert not (folder / "planned").exists()


def test_it_is_stopped_goes_on_and_tells(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = MethodRun._make, []

    def interrupted(self: MethodRun, *arguments: object) -> object:
        if len(made) == 9:
            raise KeyboardInterrupt
        made.append(self.method.name)
        return make(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(MethodRun, "_make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call(folder)
    first = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*.png")}
    assert len(first) == 9 and not (folder / "out/RESULTS.md").exists()
    assert len((folder / "out/results.jsonl").read_text().splitlines()) == 9
    monkeypatch.setattr(MethodRun, "_make", make)
    call(folder)
    assert all(path.stat().st_mtime_ns == at for path, at in first.items())  # nothing was made twice

    pictures = sorted((folder / "out").glob("*/objects/cup/*.png"))
    assert len(pictures) == 2 * len(METHODS)
    files = list((folder / "out/objects/objects/cup").glob("*.safetensors"))
    assert len(files) == len(LEARNT)  # three pictures are all, also of five; sampling learns nothing
    row = json.loads(embedded_text(folder / "out/linear-kv/objects/cup/0001.png")["row"])
    assert row["scores"]["v2/outside"] == 0 and -1 <= row["scores"]["v2/identity_mean"] <= 1
    assert set(row["recipe"]) == {
        "kind", "metrics", "version", "base", "seed", "context", "settings", "object", "object_scale",
        "pictures",
    }  # fmt: skip
    paper = json.loads(embedded_text(folder / "out/paper-kv/objects/cup/0001.png")["row"])["recipe"]
    assert (paper["settings"]["insert.blend"], paper["settings"]["sample.guidance_scale"]) == ("paper", 5.0)
    assert row["recipe"]["settings"]["insert.blend"] != "paper" and paper["object"] != row["recipe"]["object"]
    kv, alone = (read_rgb(folder / f"out/{name}/objects/cup/0001.png") for name in ("none-kv", "linear-kv"))
    assert (kv != alone).any()
    text = (folder / "out/RESULTS.md").read_text("utf-8")
    assert f"{len(METHODS)} of {len(METHODS)} runs" in text
    assert "few-shot tokens beat K/V tuning" in text and "### Few-shot pictures" in text
    assert (folder / "out/reports/objects/sheet.png").is_file()

    capsys.readouterr()
    call(folder, "--plan")
    assert all("0 of   1 runs" in line for line in capsys.readouterr().out.splitlines())
    call(folder, "--plan", "--seed", "4")  # pasting draws no noise, and what was learnt is learnt
    todo = {line.split()[0] for line in capsys.readouterr().out.splitlines() if " 1 of " in line}
    assert todo == set(METHODS) - {"flat"}
    monkeypatch.setattr("ldm.evaluation.run.__version__", "9")  # another version may draw otherwise
    call(folder, "--plan")
    assert all("1 of   1 runs" in line for line in capsys.readouterr().out.splitlines())


def test_a_sheet_of_another_program_is_named_before_any_work(folder: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "reports/objects/sheet.png"
    sheet.parent.mkdir(parents=True)
    sheet.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"sheet\.png is no sheet of a report and would be overwritten"):
        call(folder, "--out", str(tmp_path))
    assert sheet.read_bytes() == b"mine" and len(list(tmp_path.rglob("*"))) == 3


def test_quick_is_less(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce.main([
        "--config", str(folder / "small.yaml"), "--benchmarks", str(folder / "objects"), "--backgrounds",
        str(folder / "bench"), "--out", str(folder / "quick"), "--quick", "--plan", "--device", "cpu",
    ])  # fmt: skip
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == list(reproduce.QUICK)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "linear"], "no method linear; there are flat"),
        (["--objects", "nobody"], "no nobody; there are"),
        (["--published", "nowhere.yaml"], "nowhere.yaml: no such config"),
        (["--benchmarks", "nowhere"], "nowhere: no such folder"),
        (["--out", __file__], "is a file, not a folder"),
        (["--base", "nowhere"], "nowhere does not exist"),
        (["--metrics", "quality", "--quality_model", "x", "--clip", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(lambda: call(folder, *flags))
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and said.count("\n") == 1
