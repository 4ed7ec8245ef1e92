"""Names that a user may give: what is unknown gets the nearest one suggested."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def suggestion(key: str, known: Iterable[str], where: str = "") -> str:
    """ "did you mean ...?", or all there is."""
    names = list(known)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    dot = f"{where}." if where else ""
    return f"did you mean {dot}{near[0]}?" if near else f"there are {', '.join(dot + k for k in names)}"


def check_names(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """ValueError that says where, if a name is not a known one."""
    names = list(known)
    for name in given:
        if name not in names:
            raise ValueError(f"{where}: unknown {name!r}; {suggestion(str(name), names)}")
