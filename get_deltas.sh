#!/bin/sh
# Extract the object file of a training run, logs/<name>/<name>.safetensors.
# For another run, or the format of the paper's code: bash get_deltas.sh --path logs/my_object --format ldm
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
. "$root/setup.sh"
exec python "$root/scripts/get_deltas.py" --default-path logs/rocket_bee "$@"
