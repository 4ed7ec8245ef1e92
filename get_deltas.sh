#!/usr/bin/env bash
# Extract what a run has learnt into one object file, by default logs/<name>/<name>.safetensors.
# For another run, or the format of the paper's code: bash get_deltas.sh --path logs/my_object --format ldm
set -euo pipefail
cd "$(dirname "$0")"
source setup.sh
exec python scripts/get_deltas.py --path logs/rocket_bee "$@"
