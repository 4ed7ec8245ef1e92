"""How a script's process ends: one line and the exit code of each failure; output that cannot stop it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ldm.config.process import explained, say
from ldm.data.failure import of_machine
from ldm.data.files import atomic_file, check_folder
from ldm.data.picture import read_rgb
from ldm.data.text import read_text
from ldm.models.weight_files import load_pickle
from ldm.objects.object_file import read_object_metadata

ROOT = Path(__file__).parents[2]
PRINTS = (
    "from ldm.config.process import run\nrun(lambda: [print(str(i) * 999, flush=True) for i in range(99)])"
)
STARTS = (
    "import os, signal\nfrom ldm.config.process import starting\n"
    "with starting():\n    os.kill(os.getpid(), signal.{})\n    print('went on')"
)


def python(code: str, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("failure", "code", "told"),
    [
        ("ImportError('libtorch.so: failed to map segment from shared object')", 3, b"out of memory"),
        ("ModuleNotFoundError(\"No module named 'torch'\")", 2, b"source setup.sh"),
    ],
)
def test_imports_that_fail_are_one_line(failure: str, code: int, told: bytes) -> None:
    code_of_script = f"from ldm.config.process import starting\nwith starting():\n    raise {failure}"
    ended = python(code_of_script, capture_output=True)
    assert ended.returncode == code and told in ended.stderr and ended.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("number", "code", "remedy"),
    [
        (errno.ENOSPC, 3, "free some space"),
        (errno.EDQUOT, 3, "free some space"),
        (errno.EIO, 3, "check the disk"),
        (errno.ESTALE, 3, "network share"),
        (errno.EMFILE, 3, "ulimit -n"),
        (errno.EFBIG, 2, "ulimit -f"),
        (errno.EROFS, 2, "can be written"),
        (errno.EACCES, 2, "permissions"),
        (errno.ENAMETOOLONG, 2, "shorter name"),
        (errno.EINVAL, 2, ""),
    ],
)
def test_system_errors_name_path_reason_and_remedy(number: int, code: int, remedy: str) -> None:
    line, found = explained(OSError(number, os.strerror(number), "out/a.png"))
    assert line.startswith(f"error: out/a.png: {os.strerror(number)}") and remedy in line
    assert "\n" not in line and found == code


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("could not create a primitive"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("unable to mmap 4 bytes from file <x>: Cannot allocate memory (12)"),
    ],
)
def test_memory_that_is_used_up_names_the_setting_that_helps(error: Exception) -> None:
    assert explained(error, "give a smaller --batch_size") == (
        "error: out of memory; give a smaller --batch_size",
        3,
    )
    assert of_machine(error)


def test_other_errors_are_mistakes_or_faults() -> None:
    assert explained(ValueError("bad")) == ("error: bad", 2)
    assert explained(FileNotFoundError("x: no such file")) == ("error: x: no such file", 2)
    assert explained(KeyboardInterrupt()) == ("interrupted", 130)
    assert explained(RuntimeError("shapes"))[1] == 70 and not of_machine(RuntimeError("shapes"))


def test_names_with_control_characters_stay_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nb\r\x1b[2J.png: 1 fault\n  0 of 3")  # an indented line is of a list of faults
    assert capsys.readouterr().err == "a\\nb\\r\\x1b[2J.png: 1 fault\n  0 of 3\n"


@pytest.mark.parametrize(
    ("make", "kind"), [(os.mkdir, "a folder"), (os.mkfifo, "a named pipe"), (None, "a device")]
)
def test_what_is_no_file_is_named_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None] | None, kind: str
) -> None:
    path = tmp_path / "x.png" if make else Path(os.devnull)
    if make:
        make(path)
    for read in (read_rgb, read_text, read_object_metadata, load_pickle):
        with pytest.raises(ValueError, match=f"{path} is {kind}; give an? "):
            read(path)
    with pytest.raises(FileNotFoundError, match=r"gone\.png: no such picture file"):
        read_rgb(tmp_path / "gone.png")


def test_a_link_to_itself_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match="loop is a broken link, not a folder"):
        check_folder(tmp_path / "loop/results", "--outdir loop/results")
    with pytest.raises((RuntimeError, OSError)) as error:
        (tmp_path / "loop").resolve(strict=True)
    line, code = explained(error.value)
    assert code == 2 and str(tmp_path) in line and line.endswith("a link leads back to itself; give the file")


def test_a_failed_write_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(OSError, match="No space left") as caught, atomic_file(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(path) and not list(tmp_path.iterdir())
    path.touch()
    with pytest.raises(FileExistsError) as blocked, atomic_file(path / "b.png"):
        pass
    assert explained(blocked.value) == (
        f"error: {path}: File exists; it is a file, not a folder; give another path",
        2,
    )
    with atomic_file(tmp_path / "new" / "folder" / "c.txt") as file:
        file.write(b"c")
    assert (tmp_path / "new/folder/c.txt").read_bytes() == b"c"


def test_a_closed_pipe_or_a_full_disk_does_not_stop_the_work() -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", PRINTS], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert first.stdout is not None and first.stderr is not None
    first.stdout.close()
    assert first.stderr.read() == b"" and first.wait() == 0
    with Path("/dev/full").open("w") as full:
        assert python(PRINTS, stdout=full).returncode == 0


def test_a_terminal_without_a_name_s_letters_gets_escapes() -> None:
    code = "from ldm.config.process import run\nrun(lambda: print('\\u7a7a.png'))"
    done = python(code, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\u7a7a.png\n", b"")


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_an_interruption_of_the_imports_is_one_line(signal: str) -> None:
    done = python(STARTS.format(signal), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"interrupted\n")


@pytest.mark.parametrize("asked", ["ignore", "error"])
def test_what_is_skipped_is_said_whatever_the_environment_says(asked: str) -> None:
    code = "import warnings\nfrom ldm.config.process import run\nrun(lambda: warnings.warn('skipped b'))"
    done = python(code, capture_output=True, env=os.environ | {"PYTHONWARNINGS": asked})
    assert (done.returncode, done.stderr) == (0, b"warning: skipped b\n")


def test_sigterm_ends_the_work_as_ctrl_c_does() -> None:
    code = "import os\nfrom ldm.config.process import run\nrun(lambda: os.kill(os.getpid(), 15))"
    done = python(code, capture_output=True)
    assert (done.returncode, done.stderr) == (130, b"interrupted\n")
