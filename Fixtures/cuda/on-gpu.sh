#!/usr/bin/env bash
# What only a GPU can show, in one command, without a network:
# on-gpu.sh [check|speed|peers|all] [--binary PROGRAM] [--out FOLDER] [--model FILE] [--small]
#   check   the machine, every case of every operation, golden and peer cases, the same bits again, the oracle (on --model too), texts,
#           the demo, the sanitizer
#   speed   ceilings, operations, one feed-forward block, training steps of three sizes of model, decoding
#   peers   MoE-PEFT and PEFT on the same GPU, where Python has them
#   --model a folder or GGUF file of SmolLM2's size, whose forward and backward pass the oracle on the processor judges
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
what=all binary=mixlora out=on-gpu small= model=
while [ $# -gt 0 ]; do
  case $1 in
    check | speed | peers | all) what=$1 ;;
    --binary) binary=$2; shift ;;
    --out) out=$2; shift ;;
    --model) model=$2; shift ;;
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
  local adapter=() type place
  [ "$2" = - ] || adapter=(--adapter "$2")
  place=$(mktemp -d)
  for type in float64 float32; do
    rm -f "$place/verdict"
    gpu trace --quiet --model "$1" "${adapter[@]}" --batch "$3" --backward --dtype $type --out "$place/$type" \
      && "$binary" compare --model "$1" "${adapter[@]}" --batch "$3" --precision $type "$place/$type" >"$place/verdict" \
      && echo "right $3 $type" && continue
    echo "wrong $3 $type $(head -n 1 "$place/verdict")"
  done
  rm -r "$place"
}
cases() {
  local case line name
  value() { sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p" <<<"$line"; }
  {
    for case in "$fixtures"/golden/*/; do printf '%s\0' "${case}model" "${case}adapter" "${case}batch.safetensors"; done
    while read -r line; do
      [ -n "$(value model)" ] || continue
      name=$(value adapter)
      printf '%s\0' "$fixtures/peers/$(value model)" "${name:+$fixtures/peers/}${name:--}" "$fixtures/peers/$(value batch)"
    done <"$fixtures/peers/cases.json"
  } | xargs -0 -n 3 -P $(($(nproc) / 2 + 1)) bash -c 'one_case "$@"' one_case >"$out/cases"
  cat "$out/cases"
  echo "$(wc -l <"$out/cases") traces, $(grep -vc ^right "$out/cases") wrong"
  [ -s "$out/cases" ] && ! grep -vq ^right "$out/cases"
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
judged() {  # MODEL ADAPTER|- BATCH FLAGS…
  local status source=(--model "$1" --batch "$3")
  [ "$2" = - ] || source+=(--adapter "$2")
  shift 3
  rm -f "$out/oracle.safetensors" "$out/verdict"
  gpu trace --quiet "${source[@]}" --activations "$@" --out "$out/oracle.safetensors" \
    && "$binary" compare "${source[@]}" "$out/oracle.safetensors" >"$out/verdict"
  status=$?
  if [ -e "$out/verdict" ]; then cat "$out/verdict" && head -n 1 "$out/verdict"; fi
  rm -f "$out/oracle.safetensors" "$out/verdict"
  return $status
}
golden=$fixtures/golden/topk
oracle() { judged "$golden/model" "$golden/adapter" "$golden/batch.safetensors" --backward --steps 3; }
# Frozen matrices that kernels decode: bfloat16, and those of GGUF files.
oracle_formats() {
  local peers=$fixtures/peers file
  judged "$peers/models/gemma-bf16" "$peers/cases/lora-gemma/adapter" "$peers/cases/lora-gemma/batch.safetensors" --backward || return 1
  for file in llama qwen2; do judged "$fixtures/gguf/$file.gguf" - "$fixtures/gguf/batch.safetensors" || return 1; done
}
# A model of SmolLM2's size with an adapter of two steps; the oracle takes a minute of the processor.
oracle_model() {
  [ -n "$model" ] || skip "no --model"
  prepare || return 1
  rm -rf "$out/model-run"
  gpu train --quiet --model "$model" --data "$out/demo/data/train.jsonl" --steps 2 --batch 4 --rank 4 --out "$out/model-run" --json || return 1
  judged "$model" "$out/model-run" "$golden/batch.safetensors" --backward
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
  local tool found=
  for tool in memcheck racecheck initcheck synccheck; do
    rm -f "$out/sanitized.safetensors"
    # A module that is asked for a kernel of another says no: an answer, which would be reported as an error of the API.
    compute-sanitizer --tool $tool --report-api-errors no --error-exitcode 9 "$binary" trace --quiet --backend cuda --model "$golden/model" \
      --adapter "$golden/adapter" --batch "$golden/batch.safetensors" --backward --steps 1 --out "$out/sanitized.safetensors" \
      && compute-sanitizer --tool $tool --report-api-errors no --error-exitcode 9 "$binary" bench train --backend cuda --random-weights \
        --model "$golden/model" --length 64 --steps 1 || found+=" $tool"
  done
  [ -z "$found" ] || { echo "found something:$found"; return 1; }
  echo "memcheck, racecheck, initcheck, synccheck found nothing"
}

# The value of a key in a line of JSON.
of() { sed -n "s/.*\"$1\":\([0-9.e+-]*\).*/\1/p"; }
# What the card can do at best: a copy's bytes, and the vendor's product at 4096³.
ceilings() {
  gpu bench ops $(sized "--channels 4096 --hidden 4096 --tokens 4096 --length 512" "--channels 64 --hidden 64 --tokens 32 --length 32") --json >"$out/ops" \
    && head -n 2 "$out/ops" && echo "a copy $(of gigabytes_per_second <"$out/ops" | head -n 1) GB/s, products $(of gflops <"$out/ops" | head -n 1) GFLOP/s"
}
operations() {
  gpu bench ops $(sized "--channels 576 --hidden 1536" "--channels 64 --hidden 64 --tokens 32 --length 32") --json \
    && gpu bench ops $(sized "--channels 4096 --hidden 11008 --tokens 2048 --length 512" "--channels 128 --hidden 192 --tokens 64 --length 32") --json
}
# How much longer a block takes than its frozen products alone, at the vendor's speed.
ffn() {
  local tokens ratios=
  for tokens in $(sized "512 1024 2048 4096" "32 64"); do
    gpu bench ffn $(sized "--channels 4096 --hidden 11008" "--channels 64 --hidden 128") --tokens $tokens --phases --json >"$out/block" || return 1
    cat "$out/block"
    ratios+=", $tokens tokens $(of floor_ratio <"$out/block" | awk '{ printf "%.2f", 1 / $1 }')"
  done
  echo "frozen products times${ratios#,}"
}
# The shape of a Llama model: layers, channels, hidden width, heads, heads of keys, vocabulary.
shape() {
  mkdir -p "$out/shape" && printf '{"model_type": "llama", "num_hidden_layers": %d, "hidden_size": %d, "intermediate_size": %d, "num_attention_heads": %d, "num_key_value_heads": %d, "vocab_size": %d, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}\n' "$@" >"$out/shape/config.json"
}
one_step() { gpu bench train --random-weights "$@" --phases >"$out/steps" && echo "$*" && cat "$out/steps"; }
steps() { one_step --model "$(sized "$fixtures/smollm2-shape" "$golden/model")" --steps $(sized 20 2) && grep '^step' "$out/steps"; }
# TinyLlama's and Llama-7B's shapes; the last as a 4-bit base that recomputes, in at most 10 GB.
large_steps() {
  local same=(--model "$out/shape" --length $(sized 512 32) --steps $(sized 3 2))
  shape $(sized "22 2048 5632 32 4 32000" "2 128 192 2 1 512") && one_step "${same[@]}" && one_step "${same[@]}" --weights bfloat16 || return 1
  shape $(sized "32 4096 11008 32 32 32000" "2 128 192 2 2 512") && one_step "${same[@]}" && one_step "${same[@]}" --weights bfloat16 || return 1
  one_step "${same[@]}" --weights q4_0 --recompute || return 1
  awk '/^memory/ { print "a 4-bit base of Llama-7B, 8 experts, recomputing: " $2 " GiB"; exit ($2 * 1.073741824 > 10) }' "$out/steps"
}
decoding() {
  local batch rates=
  for batch in 1 8; do
    gpu bench generate --random-weights --model "$(sized "$fixtures/smollm2-shape" "$golden/model")" --batch $batch --method mixlora $(sized "" "--prompt 16 --tokens 8") --json >"$out/decoded" || return 1
    cat "$out/decoded"
    rates+=", $batch at once $(of tokens_per_second <"$out/decoded" | cut -d. -f1)"
  done
  echo "tokens/s:${rates#,}"
}
moe_peft() {
  [ -z "$small" ] || skip "a rehearsal has no other program to be compared with"
  USE_FLAX=0 python3 -c 'import torch, moe_peft, peft; assert torch.cuda.is_available()' 2>/dev/null || skip "no Python with torch, moe_peft, peft and a GPU"
  python3 "$fixtures/bench/peers.py" "$fixtures/smollm2-shape" --mixlora "$binary" --device cuda --peers mixlora,moe-peft,lora-same,peft-same --steps 8
}

export fixtures out binary small model golden
export -f skip gpu sized machine doctor doctor_own one_case cases prepare same_bits judged oracle oracle_formats oracle_model texts demo_run
export -f sanitizer of ceilings operations ffn shape one_step steps large_steps decoding moe_peft
if [ "$what" = check ] || [ "$what" = all ]; then
  stage machine machine
  for name in doctor doctor_own cases same_bits oracle oracle_formats oracle_model texts demo_run sanitizer; do stage $name $name; done
fi
check_failed=$failed check_passed=$passed
if [ "$what" = speed ] || [ "$what" = all ]; then
  for name in ceilings operations ffn steps large_steps decoding; do stage $name $name; done
fi
if [ "$what" = peers ] || [ "$what" = all ]; then stage moe_peft moe_peft; fi
echo "passed $passed, failed $failed, not run $not_run" | tee -a "$out/report.txt"
for name in machine ceilings operations ffn steps large_steps decoding moe_peft; do
  [ ! -e "$out/$name.log" ] || { echo && echo "$name" && cat "$out/$name.log"; } >>"$out/report.txt"
done
if [ "$what" = check ] || [ "$what" = all ]; then [ $check_failed -eq 0 ] && [ $check_passed -gt 0 ]; else [ $failed -eq 0 ] && [ $passed -gt 0 ]; fi
