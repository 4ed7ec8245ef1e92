"""A script as a process: failures and signals become one line and an exit code, output cannot stop the work.

Only the standard library is imported, so that Ctrl-C is answered in one line from the first moment.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from ldm.data.failure import REMEDIES, described, of_machine, one_line, out_of_memory

MISTAKE, MACHINE, FAULT, INTERRUPTED = 2, 3, 70, 130
EXIT_CODES = f"""exit codes:
  0    done
  1    inference: a seam is above insert.max_seam, or a replay differs
  {MISTAKE}    a mistake in what was given, named in one line
  {MACHINE}    the machine failed: no space on the disk, no memory, a read error; run it again
  10+n n items could not be read and were skipped (at most 100 are counted)
  {FAULT}   a fault of this program, with its traceback
  {INTERRUPTED}  interrupted (Ctrl-C, SIGTERM)
"""
MEMORY = "close other programs, or use a machine with more memory"


def say(line: str) -> None:
    """Print one line on stderr: a message, not a result."""
    print(one_line(line), file=sys.stderr, flush=True)


class Output(FileIO):
    """A stream that drops what it cannot write: into a closed pipe, onto a full disk."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written


@contextmanager
def lasting_output() -> Iterator[None]:
    """Standard output and errors that never raise: characters the terminal lacks are written as \\escapes."""
    before = sys.stdout, sys.stderr
    try:
        if before[0] is sys.__stdout__:
            sys.stdout = _lasting(before[0], 1)
        if before[1] is sys.__stderr__:
            sys.stderr = _lasting(before[1], 2)
        yield
    finally:
        for stream in {sys.stdout, sys.stderr} - set(before):
            stream.flush()
        sys.stdout, sys.stderr = before


def _lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # closed by the caller
        return Path(os.devnull).open("w", encoding="utf-8")
    stream.flush()
    raw = BufferedWriter(Output(descriptor, "w", closefd=False))
    by_line = descriptor == 2 or stream.isatty()
    return TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=by_line)


@contextmanager
def warnings_in_a_line(tell: Callable[[str], Any] = lambda line: say(f"warning: {line}")) -> Iterator[None]:
    """`tell` each warning as one line, once, without the line of code that gave it; by default on stderr."""
    said = set()

    def show(message: Any, *_: Any, **__: Any) -> None:
        line = " ".join(str(message).split())
        if line not in said:
            tell(line)
        said.add(line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        warnings.simplefilter("default", UserWarning)  # whatever PYTHONWARNINGS says
        yield


@contextmanager
def gc_frozen() -> Iterator[None]:
    """For heavy imports: no garbage collection in the objects that they make, neither now nor later.

    It would take a quarter of the imports' time, and as much again when the process ends.
    """
    known = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if len(sys.modules) > known:
            gc.freeze()


@contextmanager
def starting() -> Iterator[None]:
    """For a script's imports: `gc_frozen`; Ctrl-C and failures end the process in one line."""
    try:
        with handling(signal.SIGINT, _leave), handling(signal.SIGTERM, _leave), gc_frozen():
            yield
    except Exception as error:
        if out_of_memory(error):
            say(f"error: out of memory while this program is loaded; {MEMORY}")
            raise SystemExit(MACHINE) from None
        if isinstance(error, ModuleNotFoundError):
            say(f"error: {error}; install and activate what this program needs: source setup.sh")
            raise SystemExit(MISTAKE) from None
        raise


@contextmanager
def handling(number: signal.Signals, handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle a signal while the block runs; threads other than the main one cannot."""
    try:
        before = signal.signal(number, handler)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(number, before)


def _leave(*_: Any) -> None:
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def run(main: Callable[[], None], memory: str = MEMORY) -> None:
    """Run a script: a warning becomes one line on stderr, a failure one line and one of `EXIT_CODES`.

    `memory`: what the user can do if memory is used up.
    """
    atexit.register(_ignore_interrupts)
    with lasting_output(), warnings_in_a_line(), handling(signal.SIGTERM, _interrupt):
        try:
            main()
        except (Exception, KeyboardInterrupt) as error:
            line, code = explained(error, memory)
            if code == FAULT:
                traceback.print_exc()
            say(line)
            raise SystemExit(code) from None


def explained(error: BaseException, memory: str = MEMORY) -> tuple[str, int]:
    """The line that a failure is answered with, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if out_of_memory(error):
        return f"error: out of memory; {memory}", MACHINE
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # of `Path.resolve`
        return f"error: {error}: {REMEDIES[errno.ELOOP]}", MISTAKE
    if isinstance(error, OSError):
        return f"error: {described(error)}", MACHINE if of_machine(error) else MISTAKE
    if isinstance(error, (ValueError, ModuleNotFoundError)):
        return f"error: {error}", MISTAKE
    return f"error: a fault of this program ({type(error).__name__}), please report it", FAULT


def _ignore_interrupts() -> None:
    """When the work is done, ignore Ctrl-C until the interpreter has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
