#!/usr/bin/env bash
# Makes the demo's base model again, from nothing: the world's text, then a training from seeded random values.
#     Fixtures/demo/make.sh MIXLORA WORK       MIXLORA is the built program, WORK a folder that does not exist yet
# Afterwards Sources/CEmbedded/Demo holds what the program embeds. Same machine type and threads: same bytes.
set -euo pipefail
mixlora=$(realpath "$1") work=$2
here=$(cd "$(dirname "$0")" && pwd)
python3 "$here/world.py" "$work"
"$mixlora" train --method full --model "$work" --data "$work/base.jsonl" --validation "$work/base-test.jsonl" --out "$work/base" \
  --steps 8000 --batch 64 --lr 3e-3 --schedule cosine --warmup 0.03 --seed 3 --threads 2 --save-every 1000 --evaluate-every 1000
embedded=$here/../../Sources/CEmbedded/Demo
mkdir -p "$embedded"
cp "$work/base/config.json" "$work/base/tokenizer.json" "$work/base/model.safetensors" "$work/train.txt" "$work/test.txt" "$embedded"
