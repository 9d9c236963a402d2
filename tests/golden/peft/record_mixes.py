# Records tests/golden/peft/mixes-eval.safetensors: what peft's add_weighted_adapter gives with dropout off.
# (mixes.logits.safetensors was recorded before the new adapter was put into evaluation: lora's dropout of 0.1 acts in mix0 to mix6.)
# Needs torch, transformers, peft (0.21). Usage: python record_mixes.py
import json, pathlib
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

here = pathlib.Path(__file__).parent
CASES = [
    ('linear', {'lora': 0.7, 'lora-b': 0.3}, {}),
    ('linear', {'lora': 1.0, 'lora-b': -0.5}, {}),
    ('cat', {'lora': 0.7, 'lora-b': 0.3}, {}),
    ('svd', {'lora': 0.7, 'lora-b': 0.3}, {}),
    ('svd', {'lora': 0.7, 'lora-b': -0.3}, {'svd_rank': 2}),
    ('svd', {'lora': 0.7, 'lora-b': 0.3}, {'svd_clamp': 0.9}),
    ('ties', {'lora': 0.7, 'lora-b': 0.3}, {'density': 0.5}),
    ('ties', {'lora': 0.7, 'lora-b': 0.3}, {'density': 0.4, 'majority_sign_method': 'frequency'}),
    ('ties_svd', {'lora': 0.7, 'lora-b': 0.3}, {'density': 0.6, 'svd_rank': 6}),
    ('magnitude_prune', {'lora': 0.7, 'lora-b': 0.3}, {'density': 0.5}),
    ('magnitude_prune_svd', {'lora': 0.7, 'lora-b': -0.3}, {'density': 0.5}),
    ('dare_linear', {'lora': 0.7, 'lora-b': 0.3}, {'density': 1.0}),
    ('dare_ties_svd', {'lora': 0.7, 'lora-b': 0.3}, {'density': 1.0}),
]
ids = load_file(here / 'mixes.logits.safetensors')['input_ids']
tensors, index = {'input_ids': ids}, []
for number, (kind, weights, options) in enumerate(CASES):
    model = AutoModelForCausalLM.from_pretrained(here / 'base-llama', dtype=torch.float32)
    names = list(weights)
    model = PeftModel.from_pretrained(model, here / names[0], adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(here / name, adapter_name=name)
    model.add_weighted_adapter(names, list(weights.values()), 'mix', combination_type=kind, **options)
    model.set_adapter('mix')
    model.eval()
    with torch.no_grad():
        tensors[f'mix{number}'] = model(input_ids=ids).logits.contiguous()
    index.append({'key': f'mix{number}', 'type': kind, 'adapters': names, 'weights': list(weights.values()), **options})
save_file(tensors, here / 'mixes-eval.safetensors')
(here / 'mixes-eval.json').write_text(json.dumps(index, indent=1) + '\n')
