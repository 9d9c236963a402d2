#!/usr/bin/env python3
"""Experts with packed weights here and in a build of llama.cpp (or ik_llama.cpp), in turn.

    bench/peers/llama.py --build DIR [--program build/bin/switchyard] [--types Q8_0 Q4_K] [--rows 512] [--rounds 3]

DIR/bin/test-backend-ops measures the product of 768 x 2048 matrices of 128 experts, 8 a row (its MUL_MAT_ID case);
`switchyard bench gemm` measures the same product. Both print GFLOP/s; the dense anchor beside ours says what the machine had
to give. test-backend-ops uses half of the machine's threads, at least one, so ours is held to as many.
Build llama.cpp with -DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=ON.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess


def theirs(build, kind, rows):
    command = [str(pathlib.Path(build) / "bin" / "test-backend-ops"), "perf", "-o", "MUL_MAT_ID", "-b", "CPU"]
    only = ["-p", f"type_a={kind[0].lower() + kind[1:]}.*n_mats=128,n_used=8.*m=768,n={rows},k=2048"]  # older builds know no filter
    done = subprocess.run(command + only, capture_output=True, text=True)
    text = (done if done.returncode == 0 else subprocess.run(command, check=True, capture_output=True, text=True)).stdout
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    for line in text.splitlines():
        case = re.search(r"type_a=(\w+).*n_mats=128,n_used=8.*m=768,n=(\d+),k=2048", line)
        rate = re.search(r"([0-9.]+) ([GT])FLOPS", line)
        if case and rate and case.group(1).lower() == kind.lower() and int(case.group(2)) == rows:
            return float(rate.group(1)) * (1000 if rate.group(2) == "T" else 1)
    return None


def ours(program, kind, rows):
    command = [program, "bench", "gemm", "--shape", f"{rows},2048,768,128,8", "--dtype", kind, "--repeats", "5", "--json",
               "--threads", str(max(1, (os.cpu_count() or 1) // 2))]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = {row["name"]: row for row in map(json.loads, lines)}
    return found["grouped_linear"]["rate"], found["dense_product"]["rate"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--program", default="build/bin/switchyard")
    parser.add_argument("--types", nargs="+", default=["Q8_0", "Q4_0", "Q4_K"])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    print(f"{'type':<8}{'switchyard':>12}{'llama.cpp':>12}{'ratio':>8}{'dense bf16':>12}")
    for kind in a.types:
        mine, dense, other = [], [], []
        for _ in range(a.rounds):
            rate, ceiling = ours(a.program, kind, a.rows)
            mine.append(rate)
            dense.append(ceiling)
            rate = theirs(a.build, kind, a.rows)
            if rate is not None:
                other.append(rate)
        us, them = statistics.median(mine), statistics.median(other) if other else float("nan")
        print(f"{kind:<8}{us:>12.0f}{them:>12.0f}{us / them:>8.2f}{statistics.median(dense):>12.0f}", flush=True)


if __name__ == "__main__":
    main()
