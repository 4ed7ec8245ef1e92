#!/bin/sh
# Learn the demo object, extract its object file, insert it into three backgrounds; results are in outputs/demo.
# Arguments go to scripts/train.py: bash demo.sh --max_steps 200
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
. "$root/setup.sh"
out=$root/outputs/demo scenes=$root/examples/scenes
before=$out/rocket_bee.before # the run of the demo before; its other files are replaced below
mkdir -p "$out"
if [ -d "$out/rocket_bee" ]; then
  rm -rf "$before"
  mv "$out/rocket_bee" "$before"
fi
replace_run() { # only by a run that has begun: a mistake in the flags loses nothing
  if [ -d "$out/rocket_bee" ]; then
    rm -rf "$before"
  elif [ -d "$before" ]; then
    mv "$before" "$out/rocket_bee"
  fi
}
trap replace_run EXIT
trap 'exit 130' INT TERM # dash runs no EXIT trap on a signal

echo "== 1/3 learn the object from its five few-shot pictures"
start=$(date +%s)
python "$root/scripts/train.py" --config "$root/configs/mini.yaml" \
  --dataset-dir "$root/examples/objects/rocket_bee" --logdir "$out" --name rocket_bee "$@"
learnt=$(date +%s)

echo "== 2/3 extract the learnt weights into an object file"
python "$root/scripts/get_deltas.py" --path "$out/rocket_bee" --out "$out/rocket_bee.safetensors"
extracted=$(date +%s)

echo "== 3/3 insert it into three backgrounds, one of them 2048 x 1536"
python "$root/scripts/inference.py" --config "$root/configs/mini.yaml" --object "$out/rocket_bee.safetensors" \
  --example_img "$scenes/table.jpg" "$scenes/rocks.jpg" "$scenes/street.jpg" \
  --mask "$scenes/table_mask.png" "$scenes/rocks_mask.png" "$scenes/street_mask.png" \
  --keep_scene --compare --outdir "$out" # the masks cover only background
inserted=$(date +%s)

echo
echo "Composites:    $out/table.png $out/rocks.png $out/street.png"
echo "Contact sheet: $out/sheet.png"
echo "Side by side:  $out/comparison.png (the cut-out, the base before learning, the learnt object)"
echo "Object file:   $out/rocket_bee.safetensors ($(du -h "$out/rocket_bee.safetensors" | cut -f1))"
echo "Seconds:       learn $((learnt - start)), extract $((extracted - learnt)), insert $((inserted - extracted))"
