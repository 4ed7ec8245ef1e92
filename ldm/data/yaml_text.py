"""YAML as people mean it: whole numbers are decimal, a date or 1:30 is text, and a key stands only once.

In: the text of a file or a value. Out: plain JSON values.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

INT, FLOAT, TIMESTAMP = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp"))
# YAML 1.1 makes 8 of 010 and 90 of 1:30, and text of 1e-4
WHOLE = re.compile(r"[-+]?(0|[1-9][0-9_]*)$")
DECIMAL = re.compile(
    r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)


def parse_yaml(text: str) -> Any:
    """The values of a YAML text; 010 stays text. ValueError in one line if it is not readable."""
    try:
        return json.loads(json.dumps(yaml.load(text, Loader=_Loader), default=str))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012 (as in its base class)
        first: [(tag, pattern) for tag, pattern in found if tag not in (INT, FLOAT, TIMESTAMP)]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> Any:
        node, seen = super().compose_mapping_node(anchor), set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    "while constructing a mapping", node.start_mark,
                    f"found the key {key.value!r} twice", key.start_mark,
                )  # fmt: skip
            seen.add(str(key.value))
        return node


for _tag, _pattern in ((INT, WHOLE), (FLOAT, DECIMAL)):
    _Loader.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))
