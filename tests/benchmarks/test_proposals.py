"""The table of proposals: a person's file is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.proposals import main
from ldm.config.process import run


def test_a_person_s_table_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bee/bbox").mkdir(parents=True)
    table = tmp_path / "table.md"
    table.write_text("| mine |\n")
    with pytest.raises(SystemExit) as caught:
        run(lambda: main([str(tmp_path), "--out", str(table)]))
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1
    assert "table.md was not written by this program" in error and table.read_text() == "| mine |\n"
