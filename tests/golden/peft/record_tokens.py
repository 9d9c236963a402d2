# Records lora-tokens: LoRA with trained rows of embeddings and head, by the peft library.
import json, sys, warnings
warnings.filterwarnings('ignore')
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
torch.manual_seed(11)
base = AutoModelForCausalLM.from_pretrained('base-llama', dtype=torch.float32).eval()
ids = load_file('lora.logits.safetensors')['input_ids'].clone()
config = LoraConfig(task_type='CAUSAL_LM', r=2, lora_alpha=6, target_modules=['q_proj', 'down_proj'], bias='none',
                    trainable_token_indices={'embed_tokens': sorted(set(ids[0].tolist()))[:3], 'lm_head': [5, 63]})
model = get_peft_model(base, config).eval()
for name, parameter in model.named_parameters():
    if 'lora_' in name: parameter.data = torch.randn_like(parameter) * .3
    if 'trainable_tokens_delta' in name: parameter.data = parameter.data + torch.randn_like(parameter)
with torch.no_grad():
    active = model(input_ids=ids).logits
    with model.disable_adapter(): disabled = model(input_ids=ids).logits
    model.save_pretrained('lora-tokens')
    merged = model.merge_and_unload().eval()(input_ids=ids).logits
save_file({'input_ids': ids, 'active': active.contiguous(), 'disabled': disabled.contiguous(), 'merged': merged.contiguous()},
          'lora-tokens.logits.safetensors')
