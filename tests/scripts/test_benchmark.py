"""The benchmark script: mistakes are one line, before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ldm.config.process import run
from scripts import benchmark


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--repeats", "-1"], "expected a .md file and 1 or more"),
        (["--out", "b.json"], "expected a .md file"),
        (["--sizes", "huge"], "invalid choice: 'huge'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(benchmark, "measure", lambda *_: pytest.fail("measured"))
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "b.md")]
    with pytest.raises(SystemExit) as caught:
        run(lambda: benchmark.main([*arguments, *out]))
    error = capsys.readouterr().err
    assert caught.value.code == 2 and message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_presets_are_inferences() -> None:
    exact, fast = (benchmark.presets(benchmark.CONFIGS["full"])[name] for name in ("exact", "fast"))
    assert (exact.sampling.sampler, exact.sampling.steps) == ("plms", 50)
    assert benchmark.presets(benchmark.CONFIGS["mini"])["fast"].sampling.steps == 1
    model: Any = object()
    assert exact.predictor(model, ()) is model and fast.predictor(model, ()).every > 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["b.md", "b.json"])
def test_only_its_own_report_is_replaced(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("# My notes" if name == "b.md" else '{"mine": 1}')
    before = (tmp_path / name).read_bytes()
    arguments = ["--sizes", "mini", "--devices", "cpu", "--out", str(tmp_path / "b.md")]
    monkeypatch.setattr(benchmark, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit) as caught:
        run(lambda: benchmark.main(arguments))
    error = capsys.readouterr().err
    assert caught.value.code == 2 and f"{name} was not written by this program" in error
    assert error.count("\n") == 1
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {name: before}

    (tmp_path / name).unlink()
    (tmp_path / "b.md").write_text("# Benchmarks\n\nof an earlier run")
    monkeypatch.setattr(benchmark, "measure", lambda *_: None)
    benchmark.main(arguments)
    assert "earlier" not in (tmp_path / "b.md").read_text()
