"""ICC profiles of RGB and grey pictures: bytes => curves and matrix; primaries and a curve => bytes.

Curves are float64 [LEVELS], a channel's stored level 0..1 => linear light 0..1. A matrix [3,3] leads from
linear channels to XYZ under the illuminant D50, as profiles store it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVELS = 65536  # samples of a curve: every stored level of 8 and 16 bits is one of them
D50 = np.array([0.96420, 1.0, 0.82491])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D65 = (0.3127, 0.3290)  # chromaticities x, y
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
# parametric curves: g, a, b, c, d: (a x + b)^g from d on, c x below
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
COPYRIGHT = "No copyright, use freely"
Chromaticity = Sequence[float]


class IccProfile(NamedTuple):
    """A profile without tables: a curve a channel, and for RGB a matrix."""

    curves: tuple[np.ndarray, ...]
    matrix: np.ndarray | None


def tags_of(profile: bytes) -> dict[str, bytes]:
    """Name => content of each tag; ValueError if these are no ICC profile."""
    if not profile:
        raise ValueError("it is damaged")
    if len(profile) < 132 or profile[36:40] != b"acsp":
        raise ValueError("it has no ICC header")
    [count] = struct.unpack_from(">I", profile, 128)
    if 132 + 12 * count > len(profile):
        raise ValueError("it is cut off")
    tags = {}
    for i in range(count):
        name, start, size = struct.unpack_from(">4sII", profile, 132 + 12 * i)
        if start + size > len(profile):
            raise ValueError("it is cut off")
        tags[name.decode("latin-1")] = profile[start : start + size]
    return tags


def colour_model(profile: bytes) -> str:
    """What kind of channels a profile is for: RGB, GRAY, CMYK, Lab ..."""
    return profile[16:20].decode("latin-1").strip()


def read_icc(tags: dict[str, bytes]) -> IccProfile | None:
    """The curves and matrix of a profile's tags; None if it has tables, or is of other channels."""
    try:
        if {"A2B0", "B2A0"} <= tags.keys():
            return None
        if "kTRC" in tags and "rTRC" not in tags:
            return IccProfile((_curve(tags["kTRC"]),), None)
        if not {"rTRC", "gTRC", "bTRC", "rXYZ", "gXYZ", "bXYZ"} <= tags.keys():
            return None
        matrix = np.stack([_xyz(tags[f"{channel}XYZ"]) for channel in "rgb"], axis=1)
        if abs(np.linalg.det(matrix)) < 1e-6:
            raise ValueError("its primaries lie on one line")
        return IccProfile(tuple(_curve(tags[f"{channel}TRC"]) for channel in "rgb"), matrix)
    except struct.error as error:
        raise ValueError(f"a tag is cut off: {error}") from error


def _xyz(tag: bytes) -> np.ndarray:
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _curve(tag: bytes) -> np.ndarray:
    x = np.linspace(0, 1, LEVELS)
    [kind, count] = tag[:4], struct.unpack_from(">I", tag, 8)[0]
    if kind == b"para":
        return parametric_curve(x, _parameters(tag))
    if kind != b"curv":
        raise ValueError(f"a curve of unknown kind {kind!r}")
    if count == 0:
        return x
    stored = np.array(struct.unpack_from(f">{count}H", tag, 12), float)
    if count == 1:
        return x ** (stored[0] / 256)
    return np.interp(x, np.linspace(0, 1, count), stored / 65535)


def _parameters(tag: bytes) -> tuple[float, ...]:
    """The stored parameters as those of the most general curve, g a b c d e f: (ax+b)^g+e, cx+f below d."""
    [kind] = struct.unpack_from(">H", tag, 8)
    counts = (1, 3, 4, 5, 7)
    if kind >= len(counts):
        raise ValueError(f"a parametric curve of unknown type {kind}")
    p = [value / 65536 for value in struct.unpack_from(f">{counts[kind]}i", tag, 12)]
    if kind == 0:
        return (*p, 1, 0, 0, -1, 0, 0)
    g, a, b = p[:3]
    if kind in (1, 2):  # below -b/a it is constant
        constant = p[3] if kind == 2 else 0.0
        return (g, a, b, 0, -b / a if a else 0, constant, constant)
    return (*p, 0, 0) if kind == 3 else tuple(p)


def parametric_curve(x: np.ndarray, parameters: Sequence[float]) -> np.ndarray:
    """Stored levels 0..1 => linear light 0..1, by parameters g, a, b, c, d and, if they are given, e, f."""
    g, a, b, c, d, e, f = (*parameters, 0, 0)[:7]
    return np.clip(np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f), 0, 1)


def rgb_matrix(primaries: Sequence[Chromaticity], white: Chromaticity) -> np.ndarray:
    """Chromaticities (x, y) of red, green, blue and white => linear RGB to XYZ under D50, [3,3]."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    lit = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    scaled = columns * np.linalg.solve(columns, lit)
    gain = (BRADFORD @ D50) / (BRADFORD @ lit)
    return np.linalg.inv(BRADFORD) @ (gain[:, None] * BRADFORD) @ scaled


def make_icc(
    name: str, curve: Sequence[float], primaries: Sequence[Chromaticity] = (), white: Chromaticity = D65
) -> bytes:
    """A profile of RGB or, without primaries, grey: `curve` holds parameters g or g, a, b, c, d."""
    kind = 0 if len(curve) == 1 else 3
    trc = struct.pack(f">4sIHH{len(curve)}i", b"para", 0, kind, 0, *(round(v * 65536) for v in curve))
    tags = {"desc": _text(name), "cprt": _text(COPYRIGHT), "wtpt": _xyz_tag(D50)}
    if not primaries:
        return pack_icc(tags | {"kTRC": trc}, "GRAY")
    matrix = rgb_matrix(primaries, white)
    tags |= {f"{channel}XYZ": _xyz_tag(matrix[:, i]) for i, channel in enumerate("rgb")}
    return pack_icc(tags | {f"{channel}TRC": trc for channel in "rgb"}, "RGB ")


def pack_icc(tags: dict[str, bytes], model: str, kind: str = "mntr") -> bytes:
    """A profile from its tags; `model`: its channels, which lead to XYZ."""
    start, table, body = 132 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name.encode(), start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s6H4s", start + len(body), b"", 0x04300000, kind.encode(), model.encode(),
        b"XYZ ", 2024, 1, 1, 0, 0, 0, b"acsp",
    )  # fmt: skip
    header = header.ljust(68, b"\0") + _xyz_tag(D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz_tag(values: Sequence[float] | np.ndarray) -> bytes:
    return struct.pack(">4sI3i", b"XYZ ", 0, *(round(float(v) * 65536) for v in values))


def _text(text: str) -> bytes:
    stored = text.encode("utf-16-be")
    return struct.pack(">4sIII2s2sII", b"mluc", 0, 1, 12, b"en", b"US", len(stored), 28) + stored
