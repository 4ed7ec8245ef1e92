#!/bin/sh
# The studio: prepare objects, draw masks, insert and compare in a browser, http://127.0.0.1:7860
# Paint-by-Example's weights: bash studio.sh --config configs/v.yaml
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
. "$root/setup.sh"
exec python "$root/scripts/studio.py" "$@"
