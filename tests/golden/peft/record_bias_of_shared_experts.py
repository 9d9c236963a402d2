# Records qwen2_moe-b-bias: LoRA with biases on lora_B beside the maps of shared experts, which have none, by the peft library.
import warnings
warnings.filterwarnings('ignore')
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
torch.manual_seed(12)
base = AutoModelForCausalLM.from_pretrained('../qwen2_moe', dtype=torch.float32).eval()
ids = torch.randint(3, base.config.vocab_size, (1, 6))
model = get_peft_model(base, LoraConfig(task_type='CAUSAL_LM', r=2, lora_alpha=3, lora_bias=True, bias='none',
                                        target_modules=['v_proj', 'gate_proj', 'up_proj', 'down_proj'])).eval()
for name, parameter in model.named_parameters():
    if 'lora_' in name: parameter.data = torch.randn_like(parameter) * .3
with torch.no_grad(): active = model(input_ids=ids).logits
model.save_pretrained('qwen2_moe-b-bias')
save_file({'input_ids': ids, 'active': active.contiguous()}, 'qwen2_moe-b-bias.logits.safetensors')
