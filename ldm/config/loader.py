"""Settings: a YAML file and `section.key=value` => a frozen dataclass, every key and value checked."""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import field, fields, is_dataclass
from math import inf
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ldm.data.failure import check_file
from ldm.data.files import list_files, path_of
from ldm.data.text import REMOVED, parse_yaml, read_text, suggestion, whole_number

ROOT = Path(__file__).resolve().parents[2]  # of the project
# diffusers' names of settings => ours, which an error then suggests
OTHER_NAMES = {
    "learning_rate": "lr",
    "num_inference_steps": "steps",
    "scale": "guidance_scale",
    "scheduler": "sampler",
}
EXTENDS = "extends"  # key of a file: the config that it changes
EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def rooted(text: str, folder: Path) -> str:
    """A path that is relative to `folder`, made absolute; "" stays.

    In the project's own folder paths stay as they were written: what a run records moves with the project.
    `~/` is the home folder.
    """
    if text.startswith("~"):
        return str(path_of(text, folder))
    return text if not text or Path.cwd() == folder == ROOT else str(folder / text)


def setting(
    default: Any,
    help: str,
    choices: Sequence[str] = (),
    *,
    least: float = -inf,
    most: float = inf,
    path: bool = False,
) -> Any:
    """A dataclass field with its help and the values it may take: one of several, or from least to most.

    `path`: on the command line it is relative to the user's folder, in the project's files to the project.
    """
    allowed = {"choices": tuple(choices), "least": least, "most": most, "path": path}
    return field(default=default, metadata={"help": help} | allowed)


def read_settings(source: Path | Mapping[str, Any] | None, overrides: Sequence[str], schema: type) -> Any:
    """A YAML file (None: defaults) and overrides, later ones winning => the schema, a frozen dataclass.

    `source` may also be the settings themselves, nested, as a run keeps them. A file may begin with
    `extends: OTHER.yaml`, relative to itself: what it does not name is as there.
    Raises FileNotFoundError, or ValueError naming the key or value and what was expected.
    """
    values = _read_file(source, schema) if isinstance(source, Path) else _plain(source or {})
    _place_paths(values, schema, ROOT, defaults=True)
    try:
        settings = _build(schema, values, "")
    except ValueError as error:
        raise ValueError(f"{source}: {error}" if isinstance(source, Path) else str(error)) from error
    for override in overrides:
        _assign(values, override, schema)
    return _build(schema, values, "") if overrides else settings


def _plain(values: Mapping[str, Any]) -> Any:
    """A copy with lists for tuples, like a YAML file's."""
    return json.loads(json.dumps(values))


def _read_file(path: Path, schema: type, extending: tuple[Path, ...] = ()) -> Any:
    """The settings of a YAML file over those of the file that it extends, their paths placed."""
    values = _read_yaml(path)
    if not isinstance(values, dict):
        return values
    below, other = {}, values.pop(EXTENDS, None)
    if other is not None:
        if not isinstance(other, str):
            raise ValueError(f"{path}: extends {other!r}; expected the name of a config")
        file = path_of(other, path.parent).resolve()
        if file in (path.resolve(), *extending):
            raise ValueError(f"{path}: extends {file}, and that extends it in turn; remove one of the lines")
        below = _read_file(file, schema, (path.resolve(), *extending))
    _place_paths(values, schema, ROOT if ROOT in path.resolve().parents else Path.cwd())
    return _over(values, below)


def _over(values: Any, below: Any) -> Any:
    """Nested values, each over the one of `below`; a section with nothing in it changes nothing."""
    if not isinstance(values, dict) or not isinstance(below, dict):
        return below if values is None else values
    return below | {key: _over(value, below.get(key)) for key, value in values.items()}


def _place_paths(values: Any, schema: type, folder: Path, defaults: bool = False) -> None:
    """Paths of a file are meant from `folder`. `defaults`: add those of the schema, from the project."""
    if not isinstance(values, dict):
        return
    kinds = get_type_hints(schema)
    for f in fields(schema):
        if is_dataclass(kinds[f.name]):
            values[f.name] = {} if values.get(f.name) is None else values[f.name]
            _place_paths(values[f.name], kinds[f.name], folder, defaults)
        elif f.metadata.get("path") and f.name not in values and defaults:
            values[f.name] = rooted(str(f.default), ROOT)
        elif f.metadata.get("path") and isinstance(values.get(f.name), str):
            values[f.name] = rooted(values[f.name], folder)


def _read_yaml(path: Path) -> Any:
    there = ", ".join(str(file) for file in list_files(Path(rooted("configs", ROOT)), (".yaml",)))
    check_file(path, "a config", f"there are {there or 'none in configs/'}")
    text = read_text(path, "config")
    try:
        values = parse_yaml(text)
        return OmegaConf.to_container(OmegaConf.create({} if values is None else values), resolve=True)
    except (OmegaConfBaseException, ValueError) as error:
        raise ValueError(f"{path}: not readable: {' '.join(str(error).split())}") from error


def _assign(values: dict, override: str, schema: type) -> None:
    """Put `section.key=value` into nested values."""
    dotted, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"{override!r} is no setting; write section.key=value, like train.max_steps=400")
    *sections, key = dotted.split(".")
    kind: Any = schema
    is_path = False
    for name in [*sections, key]:
        known = {f.name: f for f in fields(kind)} if is_dataclass(kind) else {}
        is_path = name in known and bool(known[name].metadata.get("path"))
        kind = get_type_hints(kind)[name] if name in known else None
    text = rooted(text, Path.cwd()) if is_path else text
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    # text stays as it was typed: YAML would make 8 of a run's name 010
    several = get_origin(kind) is tuple and "," in text and not text.startswith("[")
    values[key] = text if kind is str or not text else _parsed(f"[{text}]" if several else text, dotted)


def _parsed(text: str, name: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{name}={text}: not readable: {error}") from error


def _build(schema: type, values: Any, where: str) -> Any:
    """Nested plain values => dataclass, every key and value checked."""
    known = {f.name: f for f in fields(schema)}
    values = {} if values is None else values  # `section:` with nothing below it
    if not isinstance(values, Mapping):
        raise ValueError(f"{where or 'the config'} is {values!r}; expected settings: {', '.join(known)}")
    types = get_type_hints(schema)
    made = {}
    for key, value in values.items():
        name = f"{where}.{key}" if where else str(key)
        if key in REMOVED:
            warnings.warn(f"setting {name} has no effect: {REMOVED[key]}", stacklevel=2)
            continue
        if key not in known:
            nearest = suggestion(OTHER_NAMES.get(str(key), str(key)), known, where)
            raise ValueError(f"unknown setting {name!r}; {nearest}")
        if is_dataclass(types[key]):
            made[key] = _build(types[key], value, name)
        else:
            made[key] = _typed(types[key], value, name, known[key].metadata)
    return schema(**made)


def _typed(kind: Any, value: Any, name: str, allowed: Mapping[str, Any]) -> Any:
    """One value as `kind` (bool, int, float, str or a tuple of them), if it is `allowed`, or ValueError."""
    if get_origin(kind) is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_typed(get_args(kind)[0], item, name, allowed) for item in items)
    if kind in (int, float) and isinstance(value, str):
        with suppress(ValueError):
            value = whole_number(value, name)  # 010 is ten
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind is str and not isinstance(value, bool | list | dict | None):
        value = str(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name}={value!r}: expected {EXPECTED[kind]}")
    choices = allowed.get("choices", ())
    if choices and value not in choices:
        near = difflib.get_close_matches(value, choices, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(choices)}{hint}")
    least, most = allowed.get("least", -inf), allowed.get("most", inf)
    if isinstance(value, int | float) and not least <= value <= most:  # nor may it be nan
        form = "" if kind is int else "g"  # a seed has 19 digits
        span = f"{least:{form}} to {most:{form}}" if most < inf else f"{least:{form}} or more"
        raise ValueError(f"{name}={value:{form}}: expected {span}")
    return value
