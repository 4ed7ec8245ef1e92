"""README and docs are true: commands parse; files, functions, settings and flags exist; the example runs."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from ldm.config.cli import PUBLISHED
from ldm.config.parser import SettingsParser
from ldm.config.schema import Config
from ldm.data.picture import read_picture
from tests.test_api import FEW

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [
    *PAGES,
    *(ROOT / name for name in ("results/RESULTS.md", "examples/README.md", "checkpoints/mini/README.md")),
]
SHELL_ONLY = {
    "demo.sh": "scripts.train",
    "test.sh": None,
    "setup.sh": None,
}  # the module that gets its words
OURS = ("ldm/", "scripts/", "configs/", "examples/", "docs/", "tests/", "benchmarks/", "checkpoints/mini")
SCRIPTS = {  # the least that each one parses
    "train": [],
    "get_deltas": ["--path", "logs/x"],
    "inference": ["--example_img", "a.png"],
    "objects": ["info", "x.safetensors"],
    "evaluate": ["--results", "x", "--out", "y"],
    "reproduce": ["--benchmarks", "x"],
    "pretrain": ["all"],
    "prepare": ["photos", "--out", "x"],
    "benchmark": [],
    "studio": [],
}
CAMPAIGN = {"--start", "--count", "--minutes", "--kills", "--load", "--lines"}  # of tests/
FOREIGN = {"--help", "--help-all", *CAMPAIGN} | {f"--{name}" for name in PUBLISHED}
SECTIONS = {f.name: get_type_hints(Config)[f.name] for f in fields(Config)}


class Parsed(Exception):
    """A command line was understood; nothing else is done."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__("parsed")
        self.parser = parser


@pytest.fixture
def only_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts stop behind their command line."""

    def stop_behind(kind: type, name: str, skipped: tuple[type, ...] = ()) -> None:
        original = getattr(kind, name)

        def stopping(self: Any, *args: Any, **more: Any) -> Any:
            found = original(self, *args, **more)
            if isinstance(self, skipped):
                return found
            raise Parsed(self)

        monkeypatch.setattr(kind, name, stopping)

    stop_behind(SettingsParser, "parse_config")  # it also reads the settings file and checks every value
    for name in ("parse_args", "parse_intermixed_args"):
        stop_behind(argparse.ArgumentParser, name, (SettingsParser,))


def blocks(page: Path, language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command line of the fenced bash blocks: its page and its words."""
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield page.name, words


def script_and_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """A command line => the module that parses it, and what it is given; None: nothing is parsed."""
    program, file, *given = words
    if words[:2] == ["python", "-m"]:
        return given[0], given[1:]
    if program in ("pip", "source"):
        return None, given
    if program in ("bash", "sh") and file in SHELL_ONLY:
        return SHELL_ONLY[file], given
    if program in ("bash", "sh"):
        text = (ROOT / file).read_text().replace("\\\n", " ")
        [(script, own)] = re.findall(r'exec python "\$root/scripts/(\w+)\.py" (.*)', text)
        return f"scripts.{script}", [*shlex.split(own.replace('"$@"', "")), *given]
    assert program == "python" and file.startswith("scripts/"), words
    return f"scripts.{Path(file).stem}", given


def parser_of(module: str, words: list[str]) -> argparse.ArgumentParser:
    """The parser that understood the words; SystemExit or ValueError if it did not."""
    with pytest.raises(Parsed) as caught:
        import_module(module).main(words)
    return caught.value.parser


def flags_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The flags of a parser and of its commands."""
    yield from parser._option_string_actions
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from flags_of(command)


@pytest.mark.parametrize(
    "page, words", commands(), ids=lambda x: x if isinstance(x, str) else " ".join(x)[:60]
)
def test_a_command_is_understood(
    page: str, words: list[str], only_parse: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    script, given = script_and_words(words)
    if script is not None:
        parser_of(script, given)
    for word in words:
        assert not word.startswith(OURS) or Path(word).exists(), f"{page}: there is no {word}"


def test_an_unknown_flag_would_be_seen(only_parse: None) -> None:
    with pytest.raises(SystemExit):
        parser_of("scripts.inference", ["--example_img", "a.png", "--no_such_flag", "1"])


def test_every_flag_that_a_page_names_exists(only_parse: None) -> None:
    known = FOREIGN | {
        flag for name, least in SCRIPTS.items() for flag in flags_of(parser_of(f"scripts.{name}", least))
    }
    known |= {flag.replace("-", "_").replace("__", "--", 1) for flag in known}
    for page in PAGES:
        spans = re.findall(r"`[^`\n]+`", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S))
        named = {flag for span in spans for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}
        assert named <= known, f"{page.name}: {sorted(named - known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    names = re.findall(r"(?<![\w./-])((?:ldm|scripts|configs|tests|benchmarks)/[\w/]+\.\w+)", text)
    assert [name for name in names if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_function_that_stands_behind_its_file_exists(page: Path) -> None:
    for file, names in re.findall(
        r"`((?:ldm|tests)/[\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", page.read_text("utf-8")
    ):
        for name in re.findall(r"\w+", names):
            found = re.search(
                rf"^\s*(def {name}\b|class {name}\b|{name}\b.* = )", (ROOT / file).read_text(), re.M
            )
            assert found, f"{page.name}: {file} has no {name}"


def test_every_test_that_a_page_names_exists() -> None:
    known = set(
        re.findall(r"def (test_\w+)", "".join(f.read_text("utf-8") for f in (ROOT / "tests").rglob("*.py")))
    )
    for page in PAGES:
        named = set(re.findall(r"`(?:[\w/.]+::)?(test_\w+)`", page.read_text("utf-8")))
        assert named <= known, f"{page.name}: {sorted(named - known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    for section, key in re.findall(rf"`({'|'.join(SECTIONS)})\.(\w+)", page.read_text("utf-8")):
        if key in ("sh", "py", "png", "txt", "json"):
            continue
        assert is_dataclass(SECTIONS[section])
        assert key in {f.name for f in fields(SECTIONS[section])}, f"{page.name}: {section}.{key}"


def messages() -> str:
    """Every string of the code, a line each, with `...` for the values in it; and setup.sh."""
    found = [(ROOT / "setup.sh").read_text()]
    for file in [*(ROOT / "ldm").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


@pytest.mark.parametrize("page", ["troubleshooting.md", "colour.md"])
def test_every_message_that_a_page_explains_exists(page: str) -> None:
    """Those of the system are excepted."""
    text, known = (ROOT / "docs" / page).read_text("utf-8"), messages() + "No space left on device"
    [table] = re.findall(r"^\| message \|.*?(?=\n\n)", text, re.M | re.S)
    quoted = [words for row in table.splitlines() for words in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert quoted and [words for words in quoted if words not in known] == []


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
    broken = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert broken == []


def test_readme_is_short_and_lists_every_page() -> None:
    lines = README.read_text("utf-8").splitlines()
    assert len(lines) <= 150
    assert [page.name for page in PAGES[1:] if f"docs/{page.name}" not in "\n".join(lines)] == []


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As it stands, but for fewer steps and another folder."""
    [example] = blocks(README, "python")
    few = ", ".join(repr(setting) for setting in FEW)
    shorter = example.replace('"configs/mini.yaml"', f'"configs/mini.yaml", {few}')
    shorter = shorter.replace('"outputs/', f'"{tmp_path}/')
    assert shorter.count(str(tmp_path)) == 2 and few in shorter
    monkeypatch.chdir(ROOT)
    exec(compile(shorter, "README.md", "exec"), {})
    assert (tmp_path / "bee.safetensors").is_file()
    assert read_picture(tmp_path / "table.png").size == read_picture(ROOT / "examples/scenes/table.jpg").size
