#!/bin/sh
# Run the comparison of the paper's claims on test benches and write RESULTS.md; the same command again goes on.
# `--plan` says what is to do and how long it takes; `--quick` does the least that tells something. Your own:
#   bash scripts/reproduce.sh --config configs/v.yaml --base checkpoints/model.ckpt \
#     --benches InsertSet/objects --backgrounds InsertSet/bench --metrics identity clip dino clip-fid background
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/setup.sh"
exec python "$root/scripts/reproduce.py" "$@"
