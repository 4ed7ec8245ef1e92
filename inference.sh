#!/bin/sh
# Insert the learnt object into a background: every pixel outside the mask stays as it is.
# Any setting can be appended, for example: bash inference.sh --mask my.png --example_img my.jpg --seed 7
# The defaults are files of the project; flags replace them (docs/command_forms.md).
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
. "$root/setup.sh"
exec python "$root/scripts/inference.py" \
  --default-config configs/mini.yaml \
  --default-object logs/rocket_bee \
  --default-example_img examples/scenes/table.jpg \
  --default-mask examples/scenes/table_mask.png \
  --default-outdir outputs/rocket_bee \
  "$@"
