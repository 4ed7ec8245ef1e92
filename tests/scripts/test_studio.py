"""The studio's script: it starts quickly, ends at Ctrl-C, and says in one line why it cannot start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `studio` is not installed")

from ldm.config.loader import ROOT
from scripts import studio
from tests.fixtures.refusal import refusal

PLAN = b'{"background": "none", "placements": [{"object": "x", "mask": "m"}]}'
AT_ONCE: list[tuple[str, bytes | None]] = [
    ("api/objects", None), ("api/results", None), ("api/learnt", None), ("api/backgrounds", None),
    ("api/plan", PLAN), ("api/insert", PLAN), ("api/objects", b'{"name": "cup"}'),
]  # fmt: skip


def answer(address: str, route: str, body: bytes | None) -> int:
    """The status of an answer."""
    request = urllib.request.Request(f"{address}{route}", body, {"content-type": "application/json"})
    try:
        return urllib.request.urlopen(request, timeout=300).status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    return refusal(lambda: studio.main(argv), capsys)


def test_a_taken_port_is_one_line(taken: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give another one, like --port" in refused(
        ["--port", str(taken), "--folder", str(tmp_path)], capsys
    )


def test_paths_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = studio.arguments(["--folder=~/studio", "--config=~/own.yaml"])
    assert (given.folder, given.config) == (tmp_path / "studio", tmp_path / "own.yaml")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--config", "nowhere.yaml"], "no such config"),
        (["--host", "203.0.113.7"], "--host 203.0.113.7"),
        (["--port", "99999"], "--port 99999"),
        (["--folder", str(ROOT / "README.md")], "is a file, not a folder"),
    ],
)
def test_mistakes_are_one_line(
    argv: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(["--port", "0", "--folder", str(tmp_path), *argv], capsys)


def test_a_database_of_another_program_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "studio.db").write_text("notes of mine" * 99)
    told = refused(["--port", "0", "--folder", str(tmp_path)], capsys)
    assert "studio.db is no database of the studio (file is not a database); move it, or give another" in told
    assert (tmp_path / "studio.db").read_text() == "notes of mine" * 99


def test_first_requests_may_come_at_once_and_it_ends_at_ctrl_c(tmp_path: Path) -> None:
    """Each of them needs imports that take seconds; threads must not get in each other's way."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts/studio.py"), "--port", "0", "--folder", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        assert b"script" in urllib.request.urlopen(address, timeout=60).read()
        assert b"sample.detail_transfer" in urllib.request.urlopen(f"{address}api/info", timeout=60).read()
        with ThreadPoolExecutor(len(AT_ONCE)) as pool:
            answers = list(pool.map(lambda request: answer(address, *request), AT_ONCE))
        assert answers == [200, 200, 200, 200, 404, 404, 200]
        for _ in range(3):  # the first is enough
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert process.wait(60) == 130
        assert process.communicate()[1] == "interrupted\n"
    finally:
        process.kill()


BUSY = """
import atexit, sys, time
atexit.register(print, "the interpreter's end", file=sys.stderr)
from ldm.studio.worker import ModelWorker
ModelWorker._load = lambda self: (print("loading", flush=True), time.sleep(99))
from scripts import studio
studio.run(studio.main)
"""


def test_it_ends_while_the_model_is_loaded(tmp_path: Path) -> None:
    """The interpreter's end would abort a thread that is in C++ code."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, "--port", "0", "--folder", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("studio: ")
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
        assert process.communicate()[1] == "interrupted\n"
    finally:
        process.kill()
