"""Records what transformers' logits processors make of random logits, in the order in which its generation applies them.

    python record.py FOLDER SEED    writes cases.json and cases.safetensors there

Presence and frequency penalties, which transformers lacks, are written out here as vLLM defines them: over written tokens, after
the repetition penalty and before the temperature."""
import json
import random
import sys

import torch
from safetensors.torch import save_file
from transformers.generation import logits_process as lp


def processed(logits, o, prompt, written):
    ids = torch.tensor([prompt + written])
    scores = logits[None].clone()
    if "logit_bias" in o:
        scores = lp.SequenceBiasLogitsProcessor([[[int(i)], b] for i, b in o["logit_bias"].items()])(ids, scores)
    if "repetition_penalty" in o:
        scores = lp.RepetitionPenaltyLogitsProcessor(o["repetition_penalty"])(ids, scores)
    for i in set(written):
        scores[0, i] -= o.get("presence_penalty", 0) + o.get("frequency_penalty", 0) * written.count(i)
    if "temperature" in o:
        scores = lp.TemperatureLogitsWarper(o["temperature"])(ids, scores)
    for name, warper in (("top_k", lp.TopKLogitsWarper), ("top_p", lp.TopPLogitsWarper), ("min_p", lp.MinPLogitsWarper),
                         ("typical", lp.TypicalLogitsWarper)):
        if name in o:
            scores = warper(o[name])(ids, scores)
    return scores[0].softmax(-1)


def main(folder, seed):
    rng, g = random.Random(seed), torch.Generator().manual_seed(seed)
    choices = {
        "logit_bias": lambda: {str(rng.randrange(vocabulary)): rng.choice([-5.0, 3.5, -100.0]) for _ in range(3)},
        "repetition_penalty": lambda: rng.choice([0.7, 1.1, 1.3, 2.0]),
        "presence_penalty": lambda: rng.choice([-1.0, 0.5, 1.5]),
        "frequency_penalty": lambda: rng.choice([-0.3, 0.2, 1.0]),
        "temperature": lambda: rng.choice([0.3, 0.7, 1.5, 4.0]),
        "top_k": lambda: rng.choice([1, 5, 40, 5000]),
        "top_p": lambda: rng.choice([0.1, 0.5, 0.9, 0.99]),
        "min_p": lambda: rng.choice([0.01, 0.1, 0.5]),
        "typical": lambda: rng.choice([0.1, 0.5, 0.9, 0.99]),
    }
    names = list(choices)
    wanted = [[n] for n in names for _ in range(3)] + [names] * 4 + [rng.sample(names, rng.randint(2, 6)) for _ in range(40)]
    cases, tensors = [], {}
    for i, some in enumerate(wanted):
        vocabulary = rng.choice([7, 50, 300, 1000])
        logits = torch.randn(vocabulary, generator=g, dtype=torch.float64) * rng.choice([0.5, 2.0, 6.0])
        prompt = [rng.randrange(vocabulary) for _ in range(rng.randint(1, 12))]
        written = [rng.randrange(vocabulary) for _ in range(rng.randint(0, 8))] * rng.choice([1, 2])
        options = {n: choices[n]() for n in names if n in some}
        cases.append({"options": options, "prompt": prompt, "written": written})
        tensors[f"logits.{i}"] = logits
        tensors[f"probabilities.{i}"] = processed(logits, options, prompt, written)
    json.dump(cases, open(folder + "/cases.json", "w"), separators=(",", ":"))
    save_file(tensors, folder + "/cases.safetensors")


main(sys.argv[1], int(sys.argv[2]))
