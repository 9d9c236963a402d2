#!/usr/bin/env python3
"""Training steps of one model here and in transformers, in turn, and of the dense twin with equal active FLOPs.

    bench/peers/training.py [--program build/bin/switchyard] [--dtypes bf16 f32] [--rounds 3] [--steps 6]
                            [--shape 512,12,32,4,512 --vocabulary 32000 --batch 8 --sequence 256]

A shape is width, layers, experts, experts a token, hidden width; the default has 348 million parameters. Each round runs
every contender in a process of its own: the mixture here, its dense twin here, and Qwen3-MoE in transformers with the grouped
product for its experts. A step is forward, backward, clipping of the norm and AdamW; the first step of a process is not counted.
bf16 means autocast over float32 weights. Prints tokens a second, medians over rounds, and the ratios.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

RECIPE = """seed: 1
tokenizer: {{kind: bpe, vocabulary: 512, sample_bytes: 200000}}
model:
  vocabulary: {vocabulary}
  width: {width}
  layers: {layers}
  context: {sequence}
  tied_embeddings: false
  attention: {{type: gqa, heads: 8, qk_norm: head}}
  {rest}
train:
  steps: {steps}
  batch: {batch}
  precision: {precision}
  optimiser: {{lr: 0.0001, weight_decay: 0.01, clip: 1}}
  schedule: {{shape: constant, warmup: 0}}
  log_every: 1
  evaluate_every: 0
  checkpoint_every: 0
data:
  sequence: {sequence}
  domains: [{{name: text, paths: [{text}]}}]
"""
MIXTURE = """mixtures:
    - {{at: feed_forward, layers: {{every: 1}}, experts: {experts}, expert: {{type: swiglu, hidden: {hidden}}},
       router: {{type: sparse-topk, k: {k}}}, losses: [{{type: lb-loss, coefficient: 0.001}}]}}"""
TWIN = "feed_forward: {{type: feed-forward, hidden: {wide}}}"


def ours(a, dtype, twin):
    width, layers, experts, k, hidden = a.shape
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        text = folder / "text.txt"
        text.write_text("".join(pathlib.Path(__file__).read_text() + f"{i}\n\n" for i in range(40 * (a.steps + 1))))
        rest = (TWIN if twin else MIXTURE).format(experts=experts, k=k, hidden=hidden, wide=k * hidden)
        recipe = folder / "recipe.yaml"
        recipe.write_text(RECIPE.format(vocabulary=a.vocabulary, width=width, layers=layers, sequence=a.sequence, rest=rest, steps=a.steps + 1,
                                        batch=a.batch, precision={"f32": "float32", "bf16": "bfloat16"}[dtype], text=text))
        command = [a.program, "train", str(recipe), f"output={folder / 'run'}", f"data.cache={folder / 'cache'}", "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
        return statistics.median([row["tokens_per_second"] for row in rows if "tokens_per_second" in row][1:])


def theirs(a, dtype):
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    width, layers, experts, k, hidden = a.shape
    config = transformers.Qwen3MoeConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=8, num_key_value_heads=8, head_dim=width // 8,
        vocab_size=a.vocabulary, num_experts=experts, num_experts_per_tok=k, moe_intermediate_size=hidden, intermediate_size=hidden,
        norm_topk_prob=True, output_router_logits=True, tie_word_embeddings=False)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, experts_implementation=a.experts)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(0, a.vocabulary, (a.batch, a.sequence))
    seconds = []
    for _ in range(a.steps + 1):
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - begin)
    return a.batch * a.sequence / statistics.median(seconds[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/bin/switchyard")
    parser.add_argument("--shape", type=lambda text: [int(n) for n in text.split(",")], default=[512, 12, 32, 4, 512])
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "f32"])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--experts", default="grouped_mm", help="transformers' experts implementation")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child:
        print(json.dumps(theirs(a, a.child)))
        return
    print(f"{'dtype':<7}{'switchyard':>12}{'dense twin':>12}{'transformers':>14}{'to the twin':>13}{'to transformers':>17}")
    for dtype in a.dtypes:
        found = {"mixture": [], "twin": [], "transformers": []}
        for _ in range(a.rounds):
            found["mixture"].append(ours(a, dtype, False))
            found["twin"].append(ours(a, dtype, True))
            child = subprocess.run([sys.executable, *sys.argv, "--child", dtype], check=True, capture_output=True, text=True)
            found["transformers"].append(json.loads(child.stdout.splitlines()[-1]))
        mixture, twin, transformers = (statistics.median(found[name]) for name in ("mixture", "twin", "transformers"))
        print(f"{dtype:<7}{mixture:>12.0f}{twin:>12.0f}{transformers:>14.0f}{mixture / twin:>13.2f}{mixture / transformers:>17.2f}", flush=True)


if __name__ == "__main__":
    main()
