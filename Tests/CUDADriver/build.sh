#!/usr/bin/env bash
# Builds libcuda.so.1 whose GPU is the emulator into a folder: build.sh FOLDER. With MIXLORA_CUDA_PATH=FOLDER the program finds it.
set -euo pipefail
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
flags=(-std=c++17 -O2 -fPIC -Wno-unused-function -ICUDAEmulator -ICUDAEmulator/include -ICUDAKernels -I../Sources/CCUDA/include)
pids=()
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
for source in CUDADriver/Driver.cpp CUDAEmulator/*.cpp CUDAKernels/*.cpp; do
  clang++ "${flags[@]}" -c "$source" -o "$objects/$(echo "$source" | tr / -).o" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
clang++ -shared -o "$folder/libcuda.so.1" "$objects"/*.o -lopenblas
