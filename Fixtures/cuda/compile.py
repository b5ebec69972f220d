#!/usr/bin/env python3
"""Compiles every kernel with NVRTC, as a GPU's program does, for every architecture; needs no GPU and no driver.

usage: compile.py NVRTC [--only FILE.cu …] [--arch sm_86 …] [--verbose]
  NVRTC   the folder of libnvrtc.so.13: of a toolkit, or of `pip download --no-deps nvidia-cuda-nvrtc==13.0.88`, unpacked
A kernel fails that does not compile, spills registers, or takes more than 48 KiB of shared memory or more registers than a
block of its size has. Where exactness is claimed (encoded.cu), the text of PTX may have no fused multiply-add in kernels whose
name begins with "decode". Exit code 1 if anything failed, or nothing was compiled.
"""
import argparse, ctypes, re, sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[2] / "Sources/CCUDA/kernels"
ARCHITECTURES = "sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_103 sm_110 sm_120 sm_121".split()
OPTIONS = ["--std=c++17", "--restrict"]  # those of Driver.c
SHARED = 48 << 10
REGISTERS = 65536


def library(folder):
    folder = Path(folder)
    for name in sorted(folder.glob("libnvrtc-builtins.so.*")): ctypes.CDLL(str(name))
    found = sorted(p for p in folder.glob("libnvrtc.so.*"))
    if not found: sys.exit(f"{folder}: no libnvrtc.so")
    return ctypes.CDLL(str(found[0]))


def compiled(job):
    """(return code, log, PTX) of one file for one architecture and precision"""
    folder, name, arch, is_double, wants_ptx = job
    n, program, size = library(folder), ctypes.c_void_p(), ctypes.c_size_t()
    header = (KERNELS / "mx.cuh").read_bytes()
    n.nvrtcCreateProgram(ctypes.byref(program), (KERNELS / name).read_bytes(), name.encode(), 1, (ctypes.c_char_p * 1)(header), (ctypes.c_char_p * 1)(b"mx.cuh"))
    options = OPTIONS + ["--gpu-architecture=" + (arch.replace("sm", "compute") if wants_ptx else arch), "--ptxas-options=-v"] + ["-DMX_DOUBLE"] * is_double
    rc = n.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*(o.encode() for o in options)))
    n.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    n.nvrtcGetProgramLog(program, log)
    ptx = ""
    if wants_ptx and rc == 0:
        n.nvrtcGetPTXSize(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        n.nvrtcGetPTX(program, text)
        ptx = text.value.decode()
    return rc, log.value.decode(), ptx


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("nvrtc")
    arguments.add_argument("--only", nargs="*")
    arguments.add_argument("--arch", nargs="*", default=ARCHITECTURES)
    arguments.add_argument("--verbose", action="store_true")
    a = arguments.parse_args()
    files = a.only or sorted(p.name for p in KERNELS.glob("*.cu"))
    bounds = {}  # threads of a block, where the text states them
    for f in files:
        for threads, kernel in re.findall(r"MX_BOUNDED_KERNEL\((\d+)\) (\w+)\(", (KERNELS / f).read_text()): bounds[kernel] = int(threads)
    jobs = [(a.nvrtc, f, arch, d, False) for f in files for arch in a.arch for d in (False, True)]
    jobs += [(a.nvrtc, f, "sm_80", False, True) for f in files if f == "encoded.cu"]
    failures, kernels, worst = [], 0, {}
    with ProcessPoolExecutor(2) as pool:
        for (_, f, arch, is_double, wants_ptx), (rc, log, ptx) in zip(jobs, pool.map(compiled, jobs)):
            where = f"{f} {'double' if is_double else 'float'} {arch}"
            if wants_ptx:
                exact = [(name, text) for name, text in re.findall(r"\.entry (\w+)\((.*?)\n\}", ptx, re.S) if name.startswith("decode")]
                failures += [f"{where} {name}: PTX has a fused multiply-add" for name, text in exact if re.search(r"\bfma\.", text)]
                if not exact: failures.append(f"{where}: no kernel decode in PTX")
                continue
            before = len(failures)
            for name, _, stores, loads, registers, rest in re.findall(
                r"Compiling entry function '(\w+)'[^\n]*\n[^\n]*\n\D*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n[^\n]*Used (\d+) registers([^\n]*)", log
            ):
                kernels += 1
                stores, loads, registers = int(stores), int(loads), int(registers)
                shared = int((re.search(r"(\d+) bytes smem", rest) or [0, 0])[1])
                if stores or loads: failures.append(f"{where} {name}: {stores} and {loads} bytes of spills")
                if shared > SHARED: failures.append(f"{where} {name}: {shared} bytes of shared memory, at most {SHARED}")
                if registers * bounds.get(name, 256) > REGISTERS: failures.append(f"{where} {name}: {registers} registers of {bounds.get(name, 256)} threads")
                key = (f, name, is_double)
                worst[key] = max(worst.get(key, (0, 0)), (registers, shared))
            if rc and len(failures) == before: failures.append(f"{where}: does not compile\n{log}")  # too much shared memory is said above
    if a.verbose:
        for (f, name, is_double), (registers, shared) in worst.items(): print(f"{f:16} {name:28} {'double' if is_double else 'float':6} {registers:4} registers {shared:6} bytes shared")
    for failure in failures: print(failure)
    print(f"{kernels} kernels for {len(a.arch)} architectures, {len(failures)} failures")
    sys.exit(1 if failures or not kernels else 0)


main()
