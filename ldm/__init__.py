"""Insert an object, learnt from a few pictures, into any background picture.

    model = ldm.load("configs/mini.yaml")
    obj = ldm.learn(model, "my/object")
    ldm.insert(model, obj, "room.jpg", mask="room_mask.png").save("out.png")

`ldm.api` documents these functions. Importing `ldm` loads neither torch nor a model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ldm.api import insert as insert
    from ldm.api import learn as learn
    from ldm.api import load as load

__version__ = "0.13.2"
API = ("insert", "learn", "load")


def __getattr__(name: str) -> Any:
    """The functions of `ldm.api`, which is imported when the first of them is used."""
    if name in API:
        return getattr(import_module("ldm.api"), name)
    raise AttributeError(f"module 'ldm' has no attribute {name!r}; its functions are {', '.join(API)}")


def __dir__() -> list[str]:
    return [*globals(), *API]
