"""Failures of the system: a file that cannot be read or written, a full disk, too little memory."""

from __future__ import annotations

import errno
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CONTROL = re.compile(r"(?!\n  )[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # indented lines are a list's
NO_FILES = {Path.is_dir: "a folder", Path.is_fifo: "a named pipe", Path.is_socket: "a socket"}

DISK = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN)  # also network shares
MACHINE = frozenset(  # not a mistake of the user: the same command may succeed later
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, *DISK}
)
REMEDIES = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some space, or write to another disk",
    errno.EROFS: "give a folder that can be written",
    errno.EACCES: "change its permissions, or give another path",
    errno.EPERM: "change its permissions, or give another path",
    **dict.fromkeys(DISK, "check the disk or the network share"),
    errno.EFBIG: "a limit of the file system or of ulimit -f; write to another disk",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOENT: "check the path",
    errno.EISDIR: "give the name of a file",
    errno.EEXIST: "it is a file, not a folder; give another path",
    errno.ENOTDIR: "one of its parents is a file; give another path",
    errno.ELOOP: "a link leads back to itself; give the file",
}
NO_MEMORY = re.compile(
    "can't allocate memory|cannot allocate memory|unable to allocate|out of memory|insufficient memory"
    "|not enough memory|bad_alloc|failed to map segment"
    "|could not create a (primitive|memory)",  # oneDNN
    re.IGNORECASE,
)


def check_file(path: Path, expected: str, remedy: str = "") -> None:
    """FileNotFoundError with `remedy` if there is no file, ValueError if it is a folder, a pipe or a device.

    `expected`: as "a picture file".
    """
    if path.is_file():
        return
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such {expected.partition(' ')[2]}{remedy and '; '}{remedy}")
    kind = next((name for is_kind, name in NO_FILES.items() if is_kind(path)), "a device")
    raise ValueError(f"{path} is {kind}; give {expected}")


def one_line(text: str) -> str:
    """A text with control characters, which names of files may hold, as escapes."""
    return CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def described(error: OSError) -> str:
    """A system error as `path: reason; remedy`; an error that has a message of its own, as that."""
    if error.errno is None:
        return str(error)
    path = "" if error.filename is None else f"{error.filename}: "
    remedy = REMEDIES.get(error.errno)
    return f"{path}{error.strerror}" + (f"; {remedy}" if remedy else "")


def reason(error: Exception) -> str:
    """The message of an error, of a system error as `described`."""
    return described(error) if isinstance(error, OSError) else str(error)


def of_machine(error: BaseException) -> bool:
    """Whether disk or memory failed, so that going on with the next file makes no sense."""
    return (isinstance(error, OSError) and error.errno in MACHINE) or out_of_memory(error)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, numpy, OpenCV, torch or a library's loading says that memory is used up."""
    if isinstance(error, MemoryError):
        return True
    known = isinstance(error, (RuntimeError, ImportError, OSError)) or type(error).__module__ == "cv2"
    return known and bool(NO_MEMORY.search(str(error)))


def if_it_fits(make: Callable[[], T], count: int, what: str, flag: str = "") -> T | None:
    """What `make` gives for a batch of `count`; None, and a warning, if memory suffices for halves at most.

    `what` names the parts of the batch, `flag` the one that sets their number. A batch of one raises.
    """
    try:
        return make()
    except Exception as error:
        if not out_of_memory(error) or count == 1:
            raise
    half = count // 2  # outside the except block, whose error holds the memory
    remedy = f" ({flag} {half})" if flag else ""
    warnings.warn(
        f"{count} {what} in one batch do not fit into memory; made {half} at a time{remedy}", stacklevel=3
    )
    return None


@contextmanager
def naming_failure(path: Path, *others: Path) -> Iterator[None]:
    """Put `path` into a system error that names no file, as a failed write does, or one of `others`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, *map(str, others)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
