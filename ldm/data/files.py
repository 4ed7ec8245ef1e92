"""Files: found by users' paths, listed in natural order, written atomically, compared by sha256."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, TextIO
from unicodedata import normalize

from ldm.data.failure import check_file, naming_failure

LONGEST = 255  # bytes of a file name on usual file systems
LOCK = ".implicit_insertion.lock"
PART = re.compile(r"\.[0-9a-f]{8}\.(\d+)\.part")  # hash and process
PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff"),
    *(".bmp", ".gif", ".avif", ".heic", ".heif"),
)
# pictures to a viewer, but of kinds that are not read
UNREAD_SUFFIXES = (
    *(".tga", ".jxl", ".jp2", ".j2k", ".jpf", ".psd", ".psb", ".xcf", ".kra", ".exr", ".hdr", ".svg", ".ico"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw", ".pef", ".srw", ".x3f"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".qoi", ".dds", ".eps"),
)
FLAGS = re.DOTALL | re.IGNORECASE
AGAIN = "fetch or copy it again"
START = 512  # bytes that tell a kind
PICTURE = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|BM.{8}|II\*\0|MM\0\*|.{4}ftyp(avi|hei|mif1|msf1)", re.DOTALL
)
BEGINNINGS = {  # pattern of the first bytes => what the file is; what to do
    rb"version https://git-lfs\.github\.com": "a Git LFS pointer, not the file itself; run git lfs pull",
    rb"\s*(<\?xml[^>]*>\s*|<!--.*?-->\s*|<!doctype svg[^>]*>\s*)*<svg": "an SVG drawing; save it as PNG",
    rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|\?xml)": "a web page saved under this name; "
    f"{AGAIN}, logged in if the site asks for it",
    rb"8BPS|\xff\x0a|\0\0\0\x0c(JXL |jP  )": "a picture of a kind that is not read; save it as PNG",
    rb".{4}ftyp(?!avi|hei|hev|mif1|msf1)|\x1aE\xdf\xa3|RIFF....AVI ": "a video; save a frame of it as PNG",
    rb"\x1f\x8b|7z\xbc\xaf|Rar!|\xfd7zXZ|BZh|\x28\xb5\x2f\xfd|.{257}ustar": "an archive; give the file in it",
    rb"%PDF": "a PDF",
    rb"GGUF": "a GGUF file, quantised weights of another program",
    rb"\x89HDF": "an HDF5 file",
}


def path_of(text: str, folder: Path = Path()) -> Path:
    """A path as a user writes it, relative to `folder`; `~/` is the home folder.

    Unless there is a file of this very name, backslashes of a path from Windows count as slashes, and accents
    may be letters of their own, as macOS writes them.
    """
    path = folder / (Path(text).expanduser() if text.startswith("~/") or text == "~" else text)
    if "\\" in text and not path.exists():
        return path_of(text.replace("\\", "/"), folder)
    written = (path, *(Path(normalize(form, str(path))) for form in ("NFC", "NFD")))
    return next((one for one in written if one.exists()), path)


def list_files(folder: Path, suffixes: Collection[str] = PICTURE_SUFFIXES) -> list[Path]:
    """A folder's visible files with these suffixes, in natural order; none if there is no folder.

    Broken links are among them; reading one raises an error that names it.
    """
    paths = folder.iterdir() if folder.is_dir() else ()
    return _in_order(path for path in paths if path.suffix.lower() in suffixes)


def pictures_in(folder: Path, also: Collection[str] = ()) -> list[Path]:
    """A folder's pictures, and files with the suffixes `also`, in natural order; one-line errors if none.

    `other_pictures` are among them; reading one of an unknown kind raises an error that names it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of pictures")
    found = list_files(folder, (*PICTURE_SUFFIXES, *also)) + other_pictures(folder, also)
    if not found:
        raise ValueError(f"{folder}: holds no picture; expected {', '.join((*PICTURE_SUFFIXES, *also))}")
    return _in_order(found)


def other_pictures(folder: Path, also: Collection[str] = ()) -> list[Path]:
    """A folder's visible pictures by their content, or of UNREAD_SUFFIXES, with none of the usual suffixes.

    One beside a picture of its name is left out: it is its source (1.psd, 1.png) or a copy (1.png.bak).
    """
    known = (*PICTURE_SUFFIXES, *also)
    names = {path.stem for path in list_files(folder, PICTURE_SUFFIXES)}
    return [
        path
        for path in _in_order(folder.iterdir() if folder.is_dir() else ())
        if path.suffix.lower() not in known
        and names.isdisjoint((path.stem, Path(path.stem).stem))
        and (
            path.suffix.lower() in UNREAD_SUFFIXES
            or (path.is_file() and os.access(path, os.R_OK) and PICTURE.match(_start(path)))
        )
    ]


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """The visible ones that are no folders, in natural order."""
    files = [path for path in paths if not path.name.startswith(".") and not path.is_dir()]
    return sorted(files, key=lambda path: (natural_key(path.stem), path.name))


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(START)


def foreign_kind(path: Path) -> str:
    """What a file is by its first bytes, as "an archive; give the file in it"; "" if they do not tell."""
    start = _start(path)
    if not start:
        return f"an empty file; {AGAIN}"
    matching = (kind for pattern, kind in BEGINNINGS.items() if re.match(pattern, start, FLAGS))
    return next(matching, "")


def one_per_stem(files: Iterable[Path], stem: Callable[[Path], str]) -> dict[str, Path]:
    """Files by what `stem` makes of their names; ValueError if two have the same."""
    found: dict[str, Path] = {}
    for file in files:
        if (first := found.setdefault(stem(file), file)) != file:
            raise ValueError(
                f"{file.parent}: {first.name} and {file.name} go by the same name, {stem(file)!r}; "
                "rename or remove one"
            )
    return found


def natural_key(text: str) -> list[str | int]:
    """Sort key that counts: 1, 2, 10 rather than 1, 10, 2."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", text)]


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write, renamed to `path` when the block ends; removed if the block raises.

    Its folder is made if there is none.
    """
    path = Path(path)
    part = path.with_name(f".{token_hex(4)}.{os.getpid()}.part")  # short: names have at most 255 bytes
    with naming_failure(path, part):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all; its folder is made if there is none."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def fitting_name(stem: str, end: str) -> str:
    """`stem` + `end` as a file name; a stem that is too long for it is cut and gets a hash of its own."""
    room = LONGEST - len(os.fsencode(end))
    if len(os.fsencode(stem)) <= room:
        return stem + end
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    cut = os.fsencode(stem)[: room - len(digest) - 1].decode("utf-8", "ignore")
    return f"{cut}-{digest}{end}"


def check_folder(folder: Path, given: str) -> None:
    """ValueError if nothing can be written into the output folder; `given`: the flag and its value."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        kind = "a file" if there.exists() else "a broken link"
        raise ValueError(f"{given}: {there} is {kind}, not a folder; give another name")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{given}: no permission to write into {there}; give another name")


def check_reports(folder: Path, beginnings: Mapping[str, str], remedy: str = "another --out") -> None:
    """ValueError if a report to be written would replace a file that does not begin as that report does."""
    for name, beginning in beginnings.items():
        file, expected = folder / name, beginning.encode()
        own = file.is_file() and expected.startswith(_start(file)[: len(expected)])  # it may be cut off
        if file.exists() and not own:
            raise ValueError(
                f"{file} was not written by this program and would be overwritten; move it, or give {remedy}"
            )


def overwritten(outputs: Iterable[Path], inputs: Iterable[Path]) -> Path | None:
    """The first input that an output would replace; links count as the file that they lead to."""
    given = {_identity(path): path for path in inputs if path.exists()}
    there = (given.get(_identity(path)) for path in outputs if path.exists())
    return next((path for path in there if path is not None), None)


def _identity(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_dev, state.st_ino


@contextmanager
def locked_folder(folder: Path, remedy: str) -> Iterator[None]:
    """Make a folder this process's own while the block runs; ValueError if another process holds it.

    A folder that was made for it and is still empty at the end is removed. The system drops the lock when the
    process ends, however it ends. File systems without locks have none.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder, remedy):
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)  # while it is held: nobody else can hold this file
            with suppress(OSError):  # not empty
                for path in new:
                    path.rmdir()


def _held(folder: Path, remedy: str) -> TextIO:
    """The lock file of a folder, open and locked."""
    import fcntl  # not on Windows

    file = (lock := folder / LOCK).open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise ValueError(f"{folder} is being written by process {owner}; {remedy}") from None
    except OSError:
        warnings.warn(f"{folder}: its file system has no locks; run one process on it", stacklevel=4)
        return file
    if not (lock.exists() and os.path.samestat(lock.stat(), os.fstat(file.fileno()))):
        file.close()  # its holder removed it meanwhile
        return _held(folder, remedy)
    with naming_failure(lock):
        file.truncate(0)
        os.write(file.fileno(), str(os.getpid()).encode())
    return file


def sweep(folder: Path) -> None:
    """Remove a folder's temporary files whose process no longer runs."""
    for part in folder.glob(".*.part"):
        written = PART.fullmatch(part.name)
        if written and not runs(int(written[1])):
            part.unlink(missing_ok=True)


def runs(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        with suppress(PermissionError):  # another user's process
            os.kill(process, 0)  # signal 0 only checks
    except ProcessLookupError:
        return False
    return True


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, 64 hex digits; of a folder: of all its visible files' names and bytes.

    Raises FileNotFoundError in one line.
    """
    if path.is_dir():
        every = sorted(file for file in path.rglob("*") if file.is_file())
        files = [file for file in every if not any(p.startswith(".") for p in file.relative_to(path).parts)]
        return text_digest([[str(file.relative_to(path)), file_digest(file)] for file in files])
    check_file(path, "a file")
    state = path.stat()
    return _of_bytes(path.resolve(), state.st_size, state.st_mtime_ns)


def text_digest(value: Any) -> str:
    """sha256 of JSON values, 64 hex digits; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=256)  # one object, mask or reference serves many backgrounds
def _of_bytes(path: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
