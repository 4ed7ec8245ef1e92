#!/bin/sh
# Learn an object from its few-shot pictures; the run is written to logs/<name> of the project.
# Any setting can be appended, for example: bash train.sh --dataset-dir my/object --max_steps 600
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
. "$root/setup.sh"
exec python "$root/scripts/train.py" --default-config configs/mini.yaml "$@"
