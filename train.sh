#!/usr/bin/env bash
# Learn an object from its few-shot pictures; the run is written to logs/<name>.
# Any setting can be given behind it, for example: bash train.sh --dataset-dir my/object --max_steps 600
set -euo pipefail
cd "$(dirname "$0")"
source setup.sh
exec python scripts/train.py --config configs/mini.yaml "$@"
