#!/bin/sh
# Test the paper's claims on benchmarks and write RESULTS.md; after an interruption the same command continues.
# `--plan` shows what is missing; `--quick` is a small comparison. Your own objects and base:
#   bash scripts/reproduce.sh --config configs/v.yaml --base checkpoints/model.ckpt \
#     --benchmarks InsertSet/objects --backgrounds InsertSet/bench --metrics identity clip dino clip-fid background
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/setup.sh"
exec python "$root/scripts/reproduce.py" "$@"
