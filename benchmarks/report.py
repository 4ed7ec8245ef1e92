"""Rows => Markdown: a table for each group, base and device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measure import Row

ABOUT = (
    "Medians; the least and the most in brackets. The cases of a table ran in turns, in one process; `as "
    "fast` compares times of a sample with the first row's. `plain` is diffusers' UNet and PLMS, with all "
    "projections at every step; `without cross-attention` that UNet without it, a wrong result: the most "
    "that folding alone could save. `folded` and `prepared` are as insertion runs: constants folded and, on "
    "a CPU, weights packed; `the first time`: with folding, casting and packing, which is done then. "
    "Memory: a case's weights, where it has its own, and what a run takes on top. "
    "`full` has Paint-by-Example's sizes and synthetic weights."
)
TITLE = "# Benchmarks"
Rates = Mapping[str, Mapping[str, float]]  # device => precision => FLOP/s of matrix multiplication
HEAD = ("", "seconds", "as fast", "samples/s", "TFLOP/s", "of matrix rate", "memory, GB")


def report(measured: Mapping[str, Any], command: str) -> str:
    """`machine`, `rates` and `rows` of one run => the text of BENCHMARKS.md; `command` made it."""
    rows, rates, machine = measured["rows"], measured["rates"], measured["machine"]
    about = ", ".join(f"{key}: {value}" for key, value in machine.items())
    speeds = [f"{device} {kind} {rate / 1e12:.3g}" for device, r in rates.items() for kind, rate in r.items()]
    parts = [
        TITLE,
        f"Made by `{command}`. {about}. Matrix multiplication, measured, TFLOP/s: {', '.join(speeds)}.",
        ABOUT,
    ]
    if machine.get("GPU") == "none":
        parts.append(
            "This machine has no GPU: what only a GPU shows is left out until the command runs on one."
        )
    for base, device, side, group in dict.fromkeys(map(_place, rows)):
        own = [row for row in rows if _place(row) == (base, device, side, group)]
        title = f"## {group}: {base}, {side} px, {device}, {own[0]['repeats']} times"
        parts += [title, _group(own, rates)]
    return "\n\n".join(parts) + "\n"


def of_sample(row: Row) -> float:
    """Seconds a sample."""
    return row["seconds"] / row["samples"]


def share(row: Row, rates: Rates) -> float | None:
    """Of the measured matrix rate that a row reaches, 0 to 1; None where its FLOPs were not counted."""
    rate = rates.get(row["device"], {}).get(row["precision"])
    return row["tflop"] * 1e12 / row["seconds"] / rate if rate and row["tflop"] else None


def _place(row: Row) -> tuple[str, str, int, str]:
    return row["base"], row["device"], row["side"], row["group"]


def _group(rows: Sequence[Row], rates: Rates) -> str:
    """One line a row."""
    lines = []
    for row in rows:
        speed, reached, memory = row["tflop"] / row["seconds"], share(row, rates), row["peak_gb"]
        lines.append(
            (
                row["name"],
                f"{row['seconds']:.4g} [{row['least']:.4g}, {row['most']:.4g}]",
                f"{of_sample(rows[0]) / of_sample(row):.2f} x",
                f"{1 / of_sample(row):.3g}",
                f"{speed:.3g}" if speed else "",
                "" if reached is None else f"{reached:.0%}",
                "" if memory is None else f"{memory:.2f}",
            )
        )
    return _table(HEAD, lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))
