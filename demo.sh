#!/usr/bin/env bash
# From nothing to pictures: learn the demo object, extract its implicit parameters, insert it into three backgrounds.
set -euo pipefail
cd "$(dirname "$0")"
source setup.sh
out=outputs/demo
rm -rf "$out"
mkdir -p "$out"

echo "== 1/3 learn the object from its five pictures"
start=$SECONDS
python scripts/train.py --config configs/mini.yaml --dataset-dir examples/objects/rocket_bee --logdir "$out" --name rocket_bee "$@"
learn=$((SECONDS - start))

echo "== 2/3 extract its implicit parameters"
start=$SECONDS
python scripts/get_deltas.py --path "$out/rocket_bee" --out "$out/rocket_bee.safetensors"
extract=$((SECONDS - start))

echo "== 3/3 insert it into three backgrounds, one of them 2048 x 1536"
start=$SECONDS
python scripts/inference.py --config configs/mini.yaml --object "$out/rocket_bee.safetensors" \
  --example_img examples/scenes/{table,rocks,street}.jpg --mask examples/scenes/{table,rocks,street}_mask.png \
  --outdir "$out"
insert=$((SECONDS - start))

echo
echo "Composites:    $(ls "$out"/{table,rocks,street}.png | xargs)"
echo "Contact sheet: $out/sheet.png"
echo "Object file:   $out/rocket_bee.safetensors ($(du -h "$out/rocket_bee.safetensors" | cut -f1))"
echo "Seconds:       learn $learn, extract $extract, insert $insert"
