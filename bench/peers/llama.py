#!/usr/bin/env python3
"""Experts with packed weights here and in ggml, that of llama.cpp or of ik_llama.cpp, in turn.

    bench/peers/llama.py --source DIR --build DIR [--program build/bin/switchyard] [--types Q8_0 Q4_K=q4_k_r4] [--rows 512] [--rounds 3] [--network]

The product of 768 x 2048 matrices of 128 experts, 8 a row, or with --network whole SwiGLU experts of that width. bench/peers/ggml_experts.cpp
is compiled against the build; ours is measured by `switchyard bench gemm`, or quant. Both print GFLOP/s; the dense product beside ours says
what the machine had to give. A type is ours, and theirs behind = where ggml has a layout of its own for it. Where ggml repacks weights as it loads a model, the faster of both layouts counts.
Build ggml's target with -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=ON.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

WIDTH, HIDDEN, EXPERTS, CHOICES = 2048, 768, 128, 8


def compiled(source, build, folder):
    libraries = sorted(pathlib.Path(build).rglob("libggml*.so"))
    if not libraries:
        raise SystemExit(f"{build} has no libggml*.so")
    program = str(pathlib.Path(folder) / "ggml_experts")
    paths = [f"-Wl,-rpath,{p}" for p in sorted({str(library.parent.resolve()) for library in libraries})]
    subprocess.run(["g++", "-O2", "-std=c++20", f"-I{pathlib.Path(source) / 'ggml' / 'include'}",
                    str(pathlib.Path(__file__).with_name("ggml_experts.cpp")), *map(str, libraries), *paths, "-Wl,--allow-shlib-undefined", "-o", program], check=True)
    return program


def theirs(program, kind, rows, threads, what):
    names = [kind] if kind != kind.upper() else [kind.lower(), kind[0].lower() + kind[1:]]
    for name in names:  # q8_0, but q4_K
        command = [program, name, *map(str, (rows, WIDTH, HIDDEN, EXPERTS, CHOICES, threads, 5)), what]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return {layout: float(rate) for layout, rate in map(str.split, done.stdout.splitlines())}
    raise SystemExit(done.stderr)


def ours(program, kind, rows, threads, what):
    command = [program, "bench", "gemm" if what == "product" else "quant", "--shape", f"{rows},{WIDTH},{HIDDEN},{EXPERTS},{CHOICES}", "--dtype", kind, "--repeats", "5", "--json",
               "--threads", str(threads)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = {row["name"]: row for row in map(json.loads, lines)}
    if what == "network":
        return found["prefill"]["rate"], found["dense_swiglu"]["rate"]
    return found["grouped_linear"]["rate"], found["dense_product"]["rate"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="llama.cpp's tree")
    parser.add_argument("--build", required=True, help="where it was built")
    parser.add_argument("--program", default="build/bin/switchyard")
    parser.add_argument("--types", nargs="+", default=["Q8_0", "Q4_0", "Q4_K"])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--network", dest="what", action="store_const", const="network", default="product")
    a = parser.parse_args()
    print(f"{'type':<16}{'switchyard':>12}{'ggml':>12}{'ratio':>8}{'dense':>12}  layout")
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(a.source, a.build, folder)
        for kind in a.types:
            mine, dense, other = [], [], []
            for _ in range(a.rounds):
                rate, ceiling = ours(a.program, kind.split("=")[0], a.rows, a.threads, a.what)
                mine.append(rate)
                dense.append(ceiling)
                other.append(theirs(program, kind.split("=")[-1], a.rows, a.threads, a.what))
            us = statistics.median(mine)
            them, layout = max((statistics.median(one[layout] for one in other), layout) for layout in other[0])
            print(f"{kind:<16}{us:>12.1f}{them:>12.1f}{us / them:>8.2f}{statistics.median(dense):>12.1f}  {layout}", flush=True)


if __name__ == "__main__":
    main()
