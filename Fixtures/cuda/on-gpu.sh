#!/usr/bin/env bash
# What only a GPU can show, in one command, without a network: on-gpu.sh [check|speed|peers|all] [--binary PROGRAM] [--out FOLDER] [--small]
#   check   the machine, every case of every operation, golden and peer cases, the same bits again, the oracle, texts, the
#           demo, the sanitizer
#   speed   operations, one feed-forward block, training steps
#   peers   MoE-PEFT on the same GPU, where Python has it
#   --small few steps and small shapes, whose figures mean nothing: for the rehearsal
# FOLDER (default: ./on-gpu) gets a log a stage, report.jsonl with a line a stage, and report.txt, all that is printed and the figures. A
# stage that cannot run says why and is counted. Exit status: 0 if no stage of `check` failed and at least one ran.
#
# The rehearsal, on a machine without a GPU, shows all of it up to the driver, which runs the kernels on the processor:
#   mkdir driver nvrtc && Tests/CUDADriver/build.sh driver
#   python3 -m pip download --no-deps -d nvrtc nvidia-cuda-nvrtc==13.0.88 && (cd nvrtc && python3 -m zipfile -e *.whl .)
#   MIXLORA_CUDA_PATH=$PWD/driver:$PWD/nvrtc/nvidia Fixtures/cuda/on-gpu.sh all --small --binary .build/release/mixlora
set -uo pipefail
fixtures=$(cd "$(dirname "$0")/.." && pwd)
what=all binary=mixlora out=on-gpu small=
while [ $# -gt 0 ]; do
  case $1 in
    check | speed | peers | all) what=$1 ;;
    --binary) binary=$2; shift ;;
    --out) out=$2; shift ;;
    --small) small=yes ;;
    *) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift
done
mkdir -p "$out" && out=$(cd "$out" && pwd)
command -v "$binary" >/dev/null || { echo "no program $binary; --binary names it" >&2; exit 2; }
binary=$(command -v "$binary")
case $binary in /*) ;; *) binary=$PWD/$binary ;; esac
: >"$out/report.jsonl"
echo "on-gpu.sh $what${small:+ --small}, mixlora $("$binary" --version), $(date -u +%Y-%m-%dT%H:%MZ), $(uname -srm)" | tee "$out/report.txt"
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
  printf '%-9s %-12s %4d s  %s\n' "$result" "$name" $((SECONDS - start)) "$(tail -n 1 "$log" | cut -c1-160)" | tee -a "$out/report.txt"
  printf '{"stage":"%s","result":"%s","status":%d,"seconds":%d}\n' "$name" "$result" "$status" $((SECONDS - start)) >>"$out/report.jsonl"
}
skip() { echo "$1"; exit 77; }
gpu() { "$binary" "$@" --backend cuda; }
# What stands first, in a rehearsal what stands second.
sized() { if [ -z "$small" ]; then echo "$1"; else echo "$2"; fi; }

machine() {
  "$binary" --version
  uname -srm
  command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit --format=csv
  "$binary" doctor --backend cuda --json | grep '"GPU"'
}
doctor() { gpu doctor; }
doctor_own() {
  if grep -q "no cuBLAS" "$out/machine.log"; then skip "no cuBLAS: the kernels' own products are in doctor"; fi
  MIXLORA_CUDA_PRODUCTS=own gpu doctor
}

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

# The demo's model: what a user's run is made of.
prepare() {
  [ -d "$out/demo/base" ] || "$binary" demo --steps $(sized 20 2) --out "$out/demo" --quiet --json >/dev/null
}
same_bits() {
  prepare || return 1
  local n steps
  steps=$(sized 20 3)
  for n in 1 2 3; do
    rm -rf "$out/run$n"
    gpu train --quiet --model "$out/demo/base" --data "$out/demo/data/train.jsonl" --steps $steps --batch 16 --seed 5 --out "$out/run$n" --json || return 1
  done
  cmp "$out/run1/adapter_model.safetensors" "$out/run2/adapter_model.safetensors" && cmp "$out/run1/adapter_model.safetensors" "$out/run3/adapter_model.safetensors" \
    && echo "three runs of $steps steps gave the same bits"
}

# Every activation and gradient of a model, judged by the float64 oracle on the processor.
oracle() {
  local golden=$fixtures/golden/topk status
  rm -f "$out/oracle.safetensors" "$out/verdict"
  gpu trace --quiet --model "$golden/model" --adapter "$golden/adapter" --batch "$golden/batch.safetensors" --backward --steps 3 --activations --out "$out/oracle.safetensors" \
    && "$binary" compare --model "$golden/model" --adapter "$golden/adapter" --batch "$golden/batch.safetensors" "$out/oracle.safetensors" >"$out/verdict"
  status=$?
  if [ -e "$out/verdict" ]; then cat "$out/verdict" && head -n 1 "$out/verdict"; fi
  return $status
}
# Token by token over cached rows: the processor's texts.
texts() {
  prepare || return 1
  local prompts=(--prompt "rotate: h j u f ->" --prompt "swap: r t z u r a ->" --prompt "descend: t i b ->") backend
  for backend in cpu cuda; do
    "$binary" generate --quiet --model "$out/demo/base" --adapter "$out/demo/mixlora" "${prompts[@]}" --max-tokens 16 --json --backend $backend >"$out/texts.$backend" \
      || return 1
  done
  [ "$(wc -l <"$out/texts.cpu")" = 3 ] || { echo "not every prompt was answered"; return 1; }
  diff "$out/texts.cpu" "$out/texts.cuda" && echo "$(wc -l <"$out/texts.cuda") texts are those of the processor"
}
demo_run() {
  [ -z "$small" ] || skip "the demo's 1200 questions would take an emulator hours"
  rm -rf "$out/gpu-demo"
  gpu demo --quiet --steps 200 --out "$out/gpu-demo"
}
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

operations() {
  gpu bench ops $(sized "" "--channels 64 --hidden 64 --tokens 32 --length 32") --json \
    && gpu bench ops $(sized "--channels 4096 --hidden 11008 --tokens 2048 --length 512" "--channels 128 --hidden 192 --tokens 64 --length 32") --json
}
ffn() {
  local tokens
  for tokens in $(sized "512 1024 2048 4096" "32 64"); do
    gpu bench ffn $(sized "--channels 4096 --hidden 11008" "--channels 64 --hidden 128") --tokens $tokens --json || return 1
  done
}
steps() {
  gpu bench train --random-weights --model "$(sized "$fixtures/smollm2-shape" "$fixtures/golden/topk/model")" --steps $(sized 8 2) --phases \
    >"$out/steps" && cat "$out/steps" && grep '^step' "$out/steps"
}
moe_peft() {
  [ -z "$small" ] || skip "a rehearsal has no other program to be compared with"
  USE_FLAX=0 python3 -c 'import torch, moe_peft, peft; assert torch.cuda.is_available()' 2>/dev/null || skip "no Python with torch, moe_peft, peft and a GPU"
  python3 "$fixtures/cuda/peers.py" "$fixtures/smollm2-shape" --binary "$binary"
}

export fixtures out binary small
export -f skip gpu sized machine doctor doctor_own one_case cases prepare same_bits oracle texts demo_run sanitizer operations ffn steps moe_peft
if [ "$what" = check ] || [ "$what" = all ]; then
  stage machine machine
  for name in doctor doctor_own cases same_bits oracle texts demo_run sanitizer; do stage $name $name; done
fi
check_failed=$failed check_passed=$passed
if [ "$what" = speed ] || [ "$what" = all ]; then
  for name in operations ffn steps; do stage $name $name; done
fi
if [ "$what" = peers ] || [ "$what" = all ]; then stage moe_peft moe_peft; fi
echo "passed $passed, failed $failed, not run $not_run" | tee -a "$out/report.txt"
for name in machine operations ffn steps moe_peft; do
  [ ! -e "$out/$name.log" ] || { echo && echo "$name" && cat "$out/$name.log"; } >>"$out/report.txt"
done
if [ "$what" = check ] || [ "$what" = all ]; then [ $check_failed -eq 0 ] && [ $check_passed -gt 0 ]; else [ $failed -eq 0 ] && [ $passed -gt 0 ]; fi
