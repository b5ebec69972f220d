#!/usr/bin/env bash
# What only a GPU can show, in one command, without a network: on-gpu.sh [check|speed|peers|all] [--binary PROGRAM] [--out FOLDER]
#   check   the machine, every case of every operation, golden and peer cases, the same bits again, the oracle, the sanitizer
#   speed   ceilings, operations, one feed-forward block, training steps
#   peers   MoE-PEFT on the same GPU, where Python has it
# FOLDER (default: ./on-gpu) gets a log a stage, report.jsonl with a line a stage, and report.txt, which is printed at the end. A stage
# that cannot run says why and is counted. Exit status: 0 if no stage of `check` failed and at least one ran.
set -uo pipefail
fixtures=$(cd "$(dirname "$0")/.." && pwd)
what=all binary=mixlora out=on-gpu
while [ $# -gt 0 ]; do
  case $1 in
    check | speed | peers | all) what=$1 ;;
    --binary) binary=$2; shift ;;
    --out) out=$2; shift ;;
    *) sed -n 2,8p "$0"; exit 2 ;;
  esac
  shift
done
mkdir -p "$out" && out=$(cd "$out" && pwd)
command -v "$binary" >/dev/null || { echo "no program $binary; --binary names it" >&2; exit 2; }
binary=$(command -v "$binary")
case $binary in /*) ;; *) binary=$PWD/$binary ;; esac
: >"$out/report.jsonl"
passed=0 failed=0 not_run=0

# A stage: its name and the function whose output is its log. Status 0 is passed, 77 not run, anything else failed; the last line says what.
stage() {
  local name=$1 log start status result
  shift
  log="$out/$name.log"
  start=$SECONDS
  timeout 600 bash -c "$1" >"$log" 2>&1
  status=$?
  case $status in
    0) result=passed passed=$((passed + 1)) ;;
    77) result="not run" not_run=$((not_run + 1)) ;;
    *) result=failed failed=$((failed + 1)) ;;
  esac
  printf '%-9s %-12s %4d s  %s\n' "$result" "$name" $((SECONDS - start)) "$(tail -n 1 "$log" | cut -c1-160)"
  printf '{"stage":"%s","result":"%s","status":%d,"seconds":%d}\n' "$name" "$result" "$status" $((SECONDS - start)) >>"$out/report.jsonl"
}
skip() { echo "$1"; exit 77; }
gpu() { "$binary" "$@" --backend cuda; }

machine() {
  "$binary" --version
  uname -srm
  command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit --format=csv
  "$binary" doctor --backend cuda --json | grep '"GPU"'
}
doctor() { gpu doctor; }
doctor_own() { MIXLORA_CUDA_PRODUCTS=own gpu doctor; }

# A trace of every golden and peer case in both precisions, judged by the oracle on the processor, which is PyTorch's equal there.
one_case() {  # MODEL ADAPTER|- BATCH
  local adapter=() type
  [ "$2" = - ] || adapter=(--adapter "$2")
  for type in float64 float32; do
    rm -f "$out/trace.safetensors"
    count=$((count + 1))
    gpu trace --quiet --model "$1" "${adapter[@]}" --batch "$3" --backward --dtype $type --out "$out/trace.safetensors" \
      && "$binary" compare --model "$1" "${adapter[@]}" --batch "$3" --precision $type "$out/trace.safetensors" >"$out/verdict" && continue
    wrong=$((wrong + 1))
    echo "wrong: $3 $type" && head -n 3 "$out/verdict"
  done
}
cases() {
  local count=0 wrong=0 case line name
  for case in "$fixtures"/golden/*/; do one_case "${case}model" "${case}adapter" "${case}batch.safetensors"; done
  while read -r line; do
    value() { sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p" <<<"$line"; }
    [ -n "$(value model)" ] || continue
    name=$(value adapter)
    one_case "$fixtures/peers/$(value model)" "${name:+$fixtures/peers/}${name:--}" "$fixtures/peers/$(value batch)"
  done <"$fixtures/peers/cases.json"
  rm -f "$out/trace.safetensors" "$out/verdict"
  echo "$count traces, $wrong wrong"
  [ $count -gt 0 ] && [ $wrong -eq 0 ]
}

# The demo's model with an adapter: what a user's run is made of.
prepare() {
  [ -d "$out/demo/base" ] || "$binary" demo --steps 20 --out "$out/demo" --quiet --json >/dev/null
}
same_bits() {
  prepare || return 1
  for n in 1 2 3; do
    rm -rf "$out/run$n"
    gpu train --quiet --model "$out/demo/base" --data "$out/demo/data/train.jsonl" --steps 20 --batch 16 --seed 5 --out "$out/run$n" --json || return 1
  done
  cmp "$out/run1/adapter_model.safetensors" "$out/run2/adapter_model.safetensors" && cmp "$out/run1/adapter_model.safetensors" "$out/run3/adapter_model.safetensors" \
    && echo "three runs of 20 steps gave the same bits"
}

# Every activation and gradient of a model, judged by the float64 oracle on the processor.
oracle() {
  prepare || return 1
  local golden=$fixtures/golden/topk
  rm -f "$out/oracle.safetensors"
  gpu trace --quiet --model "$golden/model" --adapter "$golden/adapter" --batch "$golden/batch.safetensors" --backward --steps 3 --activations --out "$out/oracle.safetensors" \
    && "$binary" compare --model "$golden/model" --adapter "$golden/adapter" --batch "$golden/batch.safetensors" "$out/oracle.safetensors"
}
demo_run() { rm -rf "$out/gpu-demo"; gpu demo --quiet --steps 200 --out "$out/gpu-demo"; }
sanitizer() {
  command -v compute-sanitizer >/dev/null || skip "no compute-sanitizer in PATH"
  local golden=$fixtures/golden/topk tool
  for tool in memcheck racecheck initcheck synccheck; do
    rm -f "$out/sanitized.safetensors"
    compute-sanitizer --tool $tool --error-exitcode 9 "$binary" trace --quiet --backend cuda --model "$golden/model" --adapter "$golden/adapter" \
      --batch "$golden/batch.safetensors" --backward --steps 1 --out "$out/sanitized.safetensors" || return 1
  done
  echo "memcheck, racecheck, initcheck, synccheck found nothing"
}

operations() { gpu bench ops --json && gpu bench ops --channels 4096 --hidden 11008 --tokens 2048 --length 512 --json; }
ffn() {
  for tokens in 512 1024 2048 4096; do gpu bench ffn --channels 4096 --hidden 11008 --tokens $tokens --json || return 1; done
}
steps() { gpu bench train --random-weights --model "$fixtures/smollm2-shape" --steps 8 --phases; }
moe_peft() {
  python3 -c 'import torch, moe_peft; assert torch.cuda.is_available()' 2>/dev/null || skip "no Python with torch, moe_peft and a GPU"
  python3 "$fixtures/cuda/peers.py" "$fixtures/smollm2-shape" --binary "$binary"
}

export fixtures out binary
export -f skip gpu machine doctor doctor_own one_case cases prepare same_bits oracle demo_run sanitizer operations ffn steps moe_peft
if [ "$what" = check ] || [ "$what" = all ]; then
  stage machine machine
  for name in doctor doctor_own cases same_bits oracle demo_run sanitizer; do stage $name $name; done
fi
check_failed=$failed check_passed=$passed
if [ "$what" = speed ] || [ "$what" = all ]; then
  for name in operations ffn steps; do stage $name $name; done
fi
if [ "$what" = peers ] || [ "$what" = all ]; then stage moe_peft moe_peft; fi
echo "passed $passed, failed $failed, not run $not_run" | tee "$out/report.txt"
if [ "$what" = check ] || [ "$what" = all ]; then [ $check_failed -eq 0 ] && [ $check_passed -gt 0 ]; else [ $failed -eq 0 ] && [ $passed -gt 0 ]; fi
