"""The .sh files as users call them: under any shell, from any folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SHELLS = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]
STARTS = {
    "train.sh": "scripts/train.py --default-config configs/mini.yaml",
    "get_deltas.sh": "scripts/get_deltas.py --default-path logs/rocket_bee",
    "inference.sh": "scripts/inference.py --default-config configs/mini.yaml --default-object",
    "scripts/reproduce.sh": "scripts/reproduce.py",
}


def project(folder: Path, python: str) -> Path:
    """The project as links in a folder with a finished set-up, whose `python` is this shell command."""
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.suffix == ".sh" or path.name in ("scripts", "configs", "pyproject.toml"):
            (folder / path.name).symlink_to(path)
    stamp = sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()[:16]
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / f".venv/.stamp-{stamp}").touch()
    (folder / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    (folder / ".venv/bin/python").chmod(0o755)
    (folder / ".venv/bin/activate").write_text(f'PATH="{folder}/.venv/bin:$PATH"\n')
    return folder


def call(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CDPATH": f".:{folder.parent}"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_script_starts_its_python_under_any_shell_from_any_folder(tmp_path: Path, shell: str) -> None:
    root = project(tmp_path / "project", "echo")
    for script, start in STARTS.items():
        done = call(shell, f"project/{script}", "--name", "a b", folder=tmp_path)
        assert done.returncode == 0 and done.stderr == "", script
        assert done.stdout.startswith(f"{root}/{start}") and done.stdout.endswith(" --name a b\n"), script


@pytest.mark.parametrize("shell", SHELLS)
def test_setup_finds_the_project_when_sourced(tmp_path: Path, shell: str) -> None:
    root = project(tmp_path / "project", "echo")
    done = call(shell, "-c", '. ./setup.sh && echo "$_root"', folder=root)
    assert done.stdout.strip() == str(root), done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_ctrl_c_during_the_set_up_is_no_failed_step(tmp_path: Path, shell: str) -> None:
    root = project(tmp_path / "project", "echo")
    next((root / ".venv").glob(".stamp-*")).unlink()
    python = root / ".venv/bin/python"  # a step that Ctrl-C ends with a traceback and exit code 1
    python.write_text('#!/bin/sh\n[ "$2" = venv ] || exit 0\nkill -INT $PPID\nexit 1\n')
    own = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        done = call("env", f"PYTHON={python}", shell, "train.sh", folder=root)
    finally:
        signal.signal(signal.SIGINT, own)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("begins", [True, False])
def test_the_demo_replaces_only_its_run_and_only_if_a_new_one_begins(
    tmp_path: Path, shell: str, begins: bool
) -> None:
    """A flag that is not known ends training with 2 before there is a run."""
    root = project(tmp_path / "project", "echo")
    run, python = root / "outputs/demo/rocket_bee", root / ".venv/bin/python"
    python.write_text(f"#!/bin/sh\n{f'mkdir -p {run}; touch {run}/new.yaml' if begins else 'exit 2'}\n")
    for name in ("table.png", "mine/photo.jpg", "rocket_bee/config.yaml"):
        (root / "outputs/demo" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "outputs/demo" / name).touch()
    done = call(shell, root / "demo.sh", folder=tmp_path)
    assert done.returncode == (0 if begins else 2), done.stderr
    left = {path.relative_to(root / "outputs/demo").as_posix() for path in root.rglob("outputs/demo/**/*.*")}
    kept = "rocket_bee/new.yaml" if begins else "rocket_bee/config.yaml"
    assert left == {"table.png", "mine/photo.jpg", kept}


def test_paths_are_the_users_and_defaults_the_projects(tmp_path: Path) -> None:
    script = project(tmp_path / "project", sys.executable) / "inference.sh"
    Image.new("RGB", (300, 200), "grey").save(tmp_path / "room.png")
    boxed = ("--box", "50", "50", "120", "120", "--plan", "--outdir", "out")
    done = call("sh", script, "--example_img", "room.png", "--sampler", "plms", *boxed, folder=tmp_path)
    assert done.returncode == 0 and "room:\n300 x 200 px" in done.stdout, done.stderr
    done = call("sh", script, *boxed, folder=tmp_path)
    assert done.returncode == 0 and "table:\n" in done.stdout, done.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"room_plan.png", "table_plan.png"}
