"""Reading a prompt and writing after it: this program against transformers, on the same model, type and threads, turn by turn.

    python bench/peers/generation.py build/bin/switchyard MODEL [--prompt 256] [--new 32] [--rounds 3] [--threads 2] [--dtype bfloat16]

Prints a table: tokens a second of reading and of writing (median and best of the rounds), and the time from nothing to the first
token in a fresh process. Reading is told apart as it is after the first prompt, as transformers is measured, and in a process that touches
its weights for the first time. Greedy, no end token, the cache of keys and values on. The model's file is read once before, so that both
find it in the page cache."""
import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

START = r"""
import sys, time, torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(int(sys.argv[3]))
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[2])).eval()
with torch.no_grad():
    model(torch.tensor([[int(i) for i in sys.argv[4].split(",")]])).logits[0, -1].argmax().item()
"""


def ours(args, env, prompts, new, batch=1):
    """One fresh process: seconds to the first token, tokens read, tokens/s read, tokens/s written, peak memory in MB."""
    command = [args.program, "generate", args.model, "--prompts", prompts, "--temperature", "0", "--ignore-end", "--dtype", args.dtype,
               "--max-tokens", str(new), "--batch", str(batch)]
    done = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = 0  # of the program alone: what wait4 says counts this process too, before it became the other
    while done.poll() is None:
        try:
            with open(f"/proc/{done.pid}/status") as file:
                peak = max([peak] + [int(line.split()[1]) for line in file if line.startswith("VmHWM")])
        except OSError:
            pass
        time.sleep(0.02)
    text, status = done.stderr.read(), done.returncode
    found = re.search(r"first token ([\d.]+) s after the start; read (\d+) tokens at ([\d.]+) tokens/s; wrote \d+ after the first at ([\d.]+)", text)
    if status or not found:
        sys.exit(text)
    return [float(v) for v in found.groups()] + [peak / 1024]


def theirs(torch, model, ids, new):
    with torch.no_grad():
        begin = time.perf_counter()
        out = model(ids, use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        read = time.perf_counter() - begin
        begin = time.perf_counter()
        for _ in range(new - 1):
            out = model(token, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
        return ids.size(1) / read, (new - 1) / (time.perf_counter() - begin)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    env = dict(os.environ, OMP_NUM_THREADS=str(args.threads))
    import torch
    import transformers
    torch.set_num_threads(args.threads)
    vocabulary = json.load(open(args.model + "/config.json"))["vocab_size"]
    random.seed(1)
    prompt = [random.randrange(vocabulary) for _ in range(args.prompt)]
    for name in os.listdir(args.model):
        if name.endswith(".safetensors"):
            with open(os.path.join(args.model, name), "rb") as file:
                while file.read(1 << 24):
                    pass
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).eval()
    ids = torch.tensor([prompt])
    with tempfile.TemporaryDirectory() as folder:
        once, more = folder + "/once.jsonl", folder + "/more.jsonl"
        line = json.dumps({"ids": prompt}) + "\n"
        open(once, "w").write(line)
        open(more, "w").write(line * 3)
        theirs(torch, model, ids, 3)
        rows, again, peer = [], [], []
        for _ in range(args.rounds):
            rows.append(ours(args, env, once, args.new))
            longer = ours(args, env, more, 2)
            again.append((longer[1] - rows[-1][1]) / (longer[1] / longer[2] - rows[-1][1] / rows[-1][2]))
            peer.append(theirs(torch, model, ids, args.new))
    del model
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", START, args.model, args.dtype, str(args.threads), ",".join(map(str, prompt))], env=env, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    fresh = time.perf_counter() - begin

    def row(name, mine, other, more=True):
        best = max if more else min
        print(f"{name:<28}{statistics.median(mine):>12.2f}{best(mine):>10.2f}{statistics.median(other):>14.2f}{best(other):>10.2f}"
              f"{statistics.median(mine) / statistics.median(other):>9.2f}")

    print(f"{args.model}: {args.dtype}, {args.threads} threads, {args.rounds} rounds; transformers {transformers.__version__}, torch {torch.__version__}")
    print(f"{'':<28}{'switchyard':>12}{'best':>10}{'transformers':>14}{'best':>10}{'ratio':>9}")
    row(f"read {args.prompt} tokens, tokens/s", again, [p[0] for p in peer])
    row("  by a fresh process", [r[2] for r in rows], [p[0] for p in peer])
    row("write, tokens/s", [r[3] for r in rows], [p[1] for p in peer])
    row("to the first token, s", [r[0] for r in rows], [fresh], more=False)
    print(f"peak memory {max(r[4] for r in rows):.0f} MB, of which the file {sum(os.path.getsize(os.path.join(args.model, n)) for n in os.listdir(args.model)) / 2**20:.0f}")


main()
