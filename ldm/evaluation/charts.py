"""Charts as PNG files, by matplotlib (extra `charts`), which draws without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldm.data.files import atomic_file

SIZE, DPI = (6.4, 3.6), 150  # inches


def new_figure() -> Any:
    """An empty figure; ModuleNotFoundError with the remedy if matplotlib is not there."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModuleNotFoundError("charts need matplotlib; run `pip install '.[charts]'`") from error
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        figure.savefig(file, format="png")


def draw_lines(
    path: Path,
    lines: Mapping[str, Sequence[tuple[float, float, float, float]]],
    *,
    x: str,
    y: str,
    log: bool = False,
) -> None:
    """Named lines of points (x, mean, low, high), with their intervals as bars; `x`, `y` name the axes."""
    figure = new_figure()
    axes = figure.subplots()
    for name, points in lines.items():
        at, mean, low, high = (list(column) for column in zip(*sorted(points), strict=True))
        below, above = ([abs(m - end) for m, end in zip(mean, ends, strict=True)] for ends in (low, high))
        axes.errorbar(at, mean, yerr=(below, above), fmt="o-", capsize=3, markersize=4, label=name)
    axes.set(xlabel=x, ylabel=y)
    if log:
        axes.set_xscale("log")
        axes.set_xticks(_ticks([point[0] for points in lines.values() for point in points]))
        axes.xaxis.set_major_formatter("{x:.3g}")  # not powers of ten
        axes.minorticks_off()
    if len(lines) > 1:
        figure.legend(loc="outside right upper")
    save_figure(figure, path)


def _ticks(values: Sequence[float]) -> list[float]:
    """The ticks of a logarithmic axis: its values, but for those less than an eighth above the last."""
    ticks: list[float] = []
    for value in sorted(values):
        if not ticks or value > 1.125 * ticks[-1]:
            ticks.append(value)
    return ticks
