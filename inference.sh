#!/usr/bin/env bash
# Insert the learnt object into a background: every pixel outside the mask stays as it is.
# Any setting can be given behind it, for example: bash inference.sh --mask my.png --example_img my.jpg --steps 25
set -euo pipefail
cd "$(dirname "$0")"
source setup.sh
exec python scripts/inference.py \
  --config configs/mini.yaml \
  --object logs/rocket_bee \
  --example_img examples/scenes/table.jpg \
  --mask examples/scenes/table_mask.png \
  --outdir outputs/rocket_bee \
  "$@"
