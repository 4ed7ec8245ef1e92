"""Measure speed and memory, and write <out>.md and <out>.json. The default, mini, takes minutes.

After an interruption the same command continues. On a machine with a GPU it also measures that.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ldm.config.process import run, starting

with starting():
    import torch

    from benchmarks.learning import Lean
    from benchmarks.plan import Measured, Subject, measure
    from benchmarks.report import TITLE, report
    from ldm import __version__
    from ldm.config.build import insert_options
    from ldm.config.cli import INFERENCE, TRAINING, OneLineParser
    from ldm.config.loader import ROOT
    from ldm.config.schema import load_config
    from ldm.data.files import check_reports, path_of, write_file
    from ldm.insertion.insert import InsertOptions

REPEATS = {"mini": 7, "full": 3}
CONFIGS = {"mini": ROOT / "configs/mini.yaml", "full": ROOT / "configs/v.yaml"}


def parser() -> OneLineParser:
    p = OneLineParser(description=__doc__, allow_abbrev=False)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    p.add_argument(
        "--sizes", nargs="+", choices=list(CONFIGS), default=["mini"], help="bases to measure [mini]"
    )
    p.add_argument(
        "--devices", nargs="+", choices=["cpu", "cuda"], default=devices, help="devices [all of this machine]"
    )
    p.add_argument("--repeats", type=int, default=0, metavar="N", help="runs of each case [mini: 7, full: 3]")
    p.add_argument("--out", type=path_of, default=ROOT / "BENCHMARKS.md", metavar="FILE",
                   help="the report [BENCHMARKS.md]")  # fmt: skip
    return p


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "CPU": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "GPU": gpu,
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "version": __version__,
    }


def presets(file: Path) -> dict[str, InsertOptions]:
    """What inference's presets sample with on the base of a config."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the included base takes one step whatever they say
        return {name: insert_options(load_config(file, settings)) for name, settings in INFERENCE.items()}


def lean() -> dict[str, Lean]:
    """What training's presets change of a step."""
    settings = {name: load_config(CONFIGS["full"], given).train for name, given in TRAINING.items()}
    return {name: Lean(t.batch_size, t.gradient_checkpointing) for name, t in settings.items()}


def source(size: str, device: str, args: argparse.Namespace) -> Subject:
    """The base of this size; at full size its weights are synthetic."""
    config = load_config(CONFIGS[size])
    a, weights = config.base.architecture, Path(config.base.path) if size == "mini" else None
    side = 256 if (size, device) == ("full", "cpu") else a.image_size
    batches = (1, 8) if size == "mini" or device == "cuda" else (1, 2)
    repeats, memory = args.repeats or REPEATS[size], lean() if size == "full" else {}
    return Subject(size, CONFIGS[size], presets(CONFIGS[size]), a, weights, side, repeats, batches, memory)


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if "cuda" in args.devices and not torch.cuda.is_available():
        raise ValueError("--devices cuda: there is no GPU that torch can use here; leave it out")
    if args.out.suffix != ".md" or args.repeats < 0:
        raise ValueError(f"--out {args.out}, --repeats {args.repeats}: expected a .md file and 1 or more")
    sources = [(source(size, device, args), device) for size in args.sizes for device in args.devices]
    check_reports(
        args.out.parent, {args.out.name: TITLE, args.out.with_suffix(".json").name: '{\n "machine"'}
    )
    measured = Measured(args.out.with_suffix(".json"), machine())
    for one, device in sources:
        measure(one, device, measured, partial(print, flush=True))
    command = shlex.join(["python", "scripts/benchmark.py", *(sys.argv[1:] if argv is None else argv)])
    found = {"machine": measured.machine, "rates": measured.rates, "rows": measured.rows}
    write_file(args.out, report(found, command))
    print(args.out, measured.file, sep="\n")


if __name__ == "__main__":
    run(main)
