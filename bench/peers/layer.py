#!/usr/bin/env python3
"""The MoE layer, forward and backward, here and in libtorch and transformers, on the same shapes in turn.

    bench/peers/layer.py [--program build/bin/switchyard] [--shapes 1024,512,512,32,4 ...] [--dtypes f32 bf16] [--rounds 3]

Every round runs `switchyard bench layer` and then this script's own measurement of the peers, each in a process of its own, so
that a neighbour's load falls on both. What is compared is the share that each reaches of the dense SwiGLU of equal FLOPs that
was measured in its own process. Needs torch; transformers' experts are measured when it can be imported.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time


def peers(shape, dtype, repeats):
    import torch

    T, D, F, E, k = shape
    lowered = dtype == "bf16"
    torch.manual_seed(0)
    x = torch.randn(T, D, requires_grad=True)
    grad = torch.randn(T, D)

    def leaf(*size):
        return (torch.randn(*size) * 0.02).requires_grad_()

    wide = [leaf(F * k, D), leaf(F * k, D), leaf(D, F * k)]
    stacks = [leaf(E, F, D), leaf(E, F, D), leaf(E, D, F)]
    chosen = torch.rand(T, E).topk(k, 1)
    weight = torch.rand(T, k)

    def grouped_mm(rows, stack, ends):
        product = getattr(torch.nn.functional, "grouped_mm", None) or torch._grouped_mm
        return product(rows, stack.transpose(1, 2), offs=ends)

    def dense():
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            h = torch.nn.functional.silu(torch.nn.functional.linear(x, wide[0])) * torch.nn.functional.linear(x, wide[1])
            return torch.nn.functional.linear(h, wide[2])

    def grouped():
        """Sorted by expert, three grouped products, back in order: the best that libtorch's own operations give."""
        expert, order = chosen.indices.reshape(-1).sort(stable=True)
        ends = torch.bincount(expert, minlength=E).cumsum(0).to(torch.int32)
        kind = torch.bfloat16 if lowered else torch.float32
        rows = x.to(kind)[order // k]
        gate, up, down = (s.to(kind) for s in stacks)
        h = torch.nn.functional.silu(grouped_mm(rows, gate, ends)) * grouped_mm(rows, up, ends)
        y = grouped_mm(h, down, ends) * weight.reshape(-1)[order].unsqueeze(1).to(kind)
        place = torch.empty_like(order)
        place[order] = torch.arange(order.numel())
        return y[place].view(T, k, D).sum(1)

    contenders = {"dense": dense, "libtorch_grouped_mm": grouped}
    try:
        from transformers import Qwen3MoeConfig
        from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

        config = Qwen3MoeConfig(hidden_size=D, moe_intermediate_size=F, num_experts=E, num_experts_per_tok=k, norm_topk_prob=True)
        config._experts_implementation = "grouped_mm"
        block = Qwen3MoeSparseMoeBlock(config)
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, std=0.02)

        def transformers_block():
            with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
                y = block(x.unsqueeze(0))
                return (y[0] if isinstance(y, tuple) else y).squeeze(0)

        contenders["transformers_grouped_mm"] = transformers_block
    except ImportError:
        pass
    leaves = [x, *wide, *stacks] + (list(block.parameters()) if "transformers_grouped_mm" in contenders else [])
    seconds = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, run in contenders.items():
            for t in leaves:
                t.grad = None
            begin = time.perf_counter()
            y = run()
            y.backward(grad.to(y.dtype))
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    return {name: median["dense"] / time_of for name, time_of in median.items() if name != "dense"}


def ours(program, shape, dtype, repeats):
    command = [program, "bench", "layer", "--shape", ",".join(map(str, shape)), "--dtype", dtype, "--repeats", str(repeats), "--json"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = {row["name"]: row for row in map(json.loads, lines)}
    return {"switchyard_experts": rows["moe_experts"]["share"], "switchyard_layer": rows["moe_layer"]["share"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/bin/switchyard")
    parser.add_argument("--shapes", nargs="+", default=["1024,512,512,32,4", "1024,1024,512,64,8"], help="T,D,F,E,k")
    parser.add_argument("--dtypes", nargs="+", default=["f32", "bf16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", nargs=2, metavar=("SHAPE", "DTYPE"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child:
        print(json.dumps(peers([int(n) for n in a.child[0].split(",")], a.child[1], a.repeats)))
        return
    print(f"{'T,D,F,E,k':<22}{'dtype':<7}{'what':<28}{'share of dense':>16}{'lowest':>9}{'highest':>9}")
    for text in a.shapes:
        for dtype in a.dtypes:
            found = {}
            for _ in range(a.rounds):
                shares = ours(a.program, [int(n) for n in text.split(",")], dtype, a.repeats)
                child = subprocess.run([sys.executable, __file__, "--child", text, dtype, "--repeats", str(a.repeats)], check=True,
                                       capture_output=True, text=True)
                shares.update(json.loads(child.stdout.splitlines()[-1]))
                for name, share in shares.items():
                    found.setdefault(name, []).append(share)
            for name, shares in found.items():
                print(f"{text:<22}{dtype:<7}{name:<28}{statistics.median(shares):>16.2f}{min(shares):>9.2f}{max(shares):>9.2f}", flush=True)


if __name__ == "__main__":
    main()
