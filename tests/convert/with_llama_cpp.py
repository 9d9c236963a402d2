#!/usr/bin/env python3
"""GGUF files written by `switchyard convert gguf`, computed by llama.cpp, against transformers on the folders they were made from.

    tests/convert/with_llama_cpp.py build/bin/switchyard [FAMILY ...]

Small random models, float32. Needs llama-cpp-python (`pip install llama-cpp-python`; its LLAMA_CPP_LIB_PATH names another build of llama.cpp) and
transformers. Prints the largest difference of logits, in shares of the largest logit; more than 1e-4 is a failure (GPT-2 and BERT: 1e-3, since
llama.cpp takes their GELU from a table of 16-bit numbers). BERT is asked for the classes of a sequence.
"""
import os
import subprocess
import sys
import tempfile

import llama_cpp
import numpy
import torch
import transformers

BASE = dict(vocab_size=96, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
            intermediate_size=96, rms_norm_eps=1e-5, tie_word_embeddings=False)
EXPERTS = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=32)
LATENT = dict(num_key_value_heads=4, q_lora_rank=24, kv_lora_rank=32, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=16, n_routed_experts=8,
              num_experts_per_tok=3, n_shared_experts=1, moe_intermediate_size=32, first_k_dense_replace=1, routed_scaling_factor=1.5, rope_interleave=True)
FINE = dict(n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=1, moe_intermediate_size=32, first_k_dense_replace=1, routed_scaling_factor=1.5,
            norm_topk_prob=True)
DBRX = dict(d_model=64, n_heads=4, n_layers=3, max_seq_len=256, attn_config=dict(kv_n_heads=2, clip_qkv=8.0, rope_theta=10000.0),
            ffn_config=dict(ffn_hidden_size=48, moe_num_experts=6, moe_top_k=2, moe_normalize_expert_weights=1.0))
GRANITE = dict(num_local_experts=6, num_experts_per_tok=2, intermediate_size=48, embedding_multiplier=6.0, attention_multiplier=0.2,
               residual_multiplier=0.5, logits_scaling=4.0)
# Where llama.cpp's code takes something for granted, so do these configs.
MODELS = {
    "llama": ("Llama", dict(rope_parameters=dict(rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                 original_max_position_embeddings=64))),
    "mistral": ("Mistral", dict(sliding_window=None, head_dim=16)),
    "mixtral": ("Mixtral", dict(sliding_window=None, num_local_experts=6, num_experts_per_tok=2)),
    "olmoe": ("Olmoe", dict(num_key_value_heads=4, num_experts=6, num_experts_per_tok=2, norm_topk_prob=False)),
    "qwen2": ("Qwen2", dict(tie_word_embeddings=True)),
    "qwen3": ("Qwen3", dict(head_dim=24)),
    "qwen2_moe": ("Qwen2Moe", dict(EXPERTS, shared_expert_intermediate_size=48, norm_topk_prob=False)),
    "qwen3_moe": ("Qwen3Moe", dict(EXPERTS, head_dim=16, norm_topk_prob=True)),
    "deepseek_v2": ("DeepseekV2", dict(LATENT, n_group=1, topk_group=1, topk_method="greedy", norm_topk_prob=False)),
    "deepseek_v3": ("DeepseekV3", dict(LATENT, n_group=4, topk_group=2, norm_topk_prob=True)),
    "gpt_oss": ("GptOss", dict(num_local_experts=6, num_experts_per_tok=2, head_dim=16, sliding_window=8, num_hidden_layers=4,
                               rope_parameters=dict(rope_type="default", rope_theta=10000.0))),
    "glm4_moe": ("Glm4Moe", dict(FINE, n_group=1, topk_group=1, head_dim=16, partial_rotary_factor=0.5, use_qk_norm=True, attention_bias=True)),
    "dots1": ("Dots1", dict(FINE, n_group=1, topk_group=1, num_key_value_heads=4, head_dim=16, sliding_window=None)),
    "minimax_m2": ("MiniMaxM2", dict(num_local_experts=6, num_experts_per_tok=2, head_dim=16, rotary_dim=8)),
    "ernie4_5_moe": ("Ernie4_5_Moe", dict(moe_num_experts=6, moe_k=2, moe_intermediate_size=32, moe_num_shared_experts=2, moe_layer_start_index=1, use_bias=False)),
    "hunyuan_v1_moe": ("HunYuanMoEV1", dict(num_experts=6, moe_topk=2, head_dim=16)),
    "dbrx": ("Dbrx", DBRX),
    "gpt2": ("GPT2", dict(n_embd=64, n_layer=3, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2)),
    "bert": ("Bert", dict(num_labels=5, hidden_act="gelu_new")),
    "t5": ("T5", dict(d_model=64, d_kv=16, d_ff=96, num_layers=3, num_heads=4, feed_forward_proj="relu", decoder_start_token_id=0)),
    "granitemoe": ("GraniteMoe", dict(GRANITE)),
    "granitemoeshared": ("GraniteMoeShared", dict(GRANITE, shared_intermediate_size=48)),
    "granitemoehybrid": ("GraniteMoeHybrid", dict(GRANITE, shared_intermediate_size=48, num_hidden_layers=4, mamba_n_heads=8, mamba_d_head=16, mamba_d_state=16,
                                                  mamba_n_groups=2, mamba_expand=2, position_embedding_type="nope",
                                                  layer_types=["mamba", "mamba", "attention", "mamba"])),
    "jamba": ("Jamba", dict(num_experts=4, num_experts_per_tok=2, num_hidden_layers=6, attn_layer_period=4, attn_layer_offset=2, expert_layer_period=2,
                            expert_layer_offset=1, mamba_d_state=16, mamba_expand=2, mamba_dt_rank=8, use_mamba_kernels=False)),
    "llama4": ("Llama4", dict(intermediate_size_mlp=96, intermediate_size=48, num_local_experts=4, num_experts_per_tok=1, head_dim=16, num_hidden_layers=4,
                              interleave_moe_layer_step=2, attention_chunk_size=8192, attn_temperature_tuning=True)),
    "minimax": ("MiniMax", dict(rms_norm_eps=1e-6, num_local_experts=4, num_experts_per_tok=2, head_dim=16, num_hidden_layers=4, block_size=32,
                                layer_types=["linear_attention", "full_attention", "linear_attention", "linear_attention"])),
    "qwen3_next": ("Qwen3Next", dict(EXPERTS, rms_norm_eps=1e-6, head_dim=16, num_hidden_layers=4, shared_expert_intermediate_size=48, linear_num_key_heads=2,
                                     linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16, partial_rotary_factor=0.5)),
}


@llama_cpp.llama_log_callback
def errors_only(level, text, _):
    if level == 4:
        sys.stderr.write(text.decode(errors="replace"))


def their_logits(path, ids, classes=0, written=None):
    """Of every place of `ids`; of `written`, which follows them behind an encoder; or of so many classes of the sequence."""
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp does not read {path}")
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = 256
    settings.type_k = settings.type_v = 0  # float32
    settings.flash_attn_type = 0
    settings.embeddings = bool(classes)
    context = llama_cpp.llama_init_from_model(model, settings)

    def pass_through(call, ids):
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        batch.n_tokens = len(ids)
        if call(context, batch) != 0:
            raise SystemExit(f"llama.cpp does not compute {path}")
        llama_cpp.llama_batch_free(batch)

    if classes or written:
        pass_through(llama_cpp.llama_encode, ids)
    if not classes:
        pass_through(llama_cpp.llama_decode, written or ids)
    width = classes or llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    given = llama_cpp.llama_get_embeddings_seq(context, 0) if classes else llama_cpp.llama_get_logits(context)
    logits = numpy.ctypeslib.as_array(given, shape=(1 if classes else len(written or ids), width)).copy()
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return logits


def difference(program, family, folder):
    name, keys = MODELS[family]
    torch.manual_seed(5)
    config = (getattr(transformers, name + "Config") if name != "Llama4" else transformers.Llama4TextConfig)(**dict(BASE, **keys))
    head = ("ForSequenceClassification" if "num_labels" in keys else "ForConditionalGeneration" if "d_kv" in keys else
            "LMHeadModel" if family == "gpt2" else "ForCausalLM")
    model = getattr(transformers, name + head)(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    hub, path = os.path.join(folder, family), os.path.join(folder, family + ".gguf")
    model.save_pretrained(hub)
    done = subprocess.run([program, "convert", "gguf", hub, path], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    ids = [int(i) for i in torch.randint(3, 96, (40,))]
    written = [0] + ids[:8] if config.is_encoder_decoder else None
    with torch.no_grad():
        wanted = model(torch.tensor([ids]), **(dict(decoder_input_ids=torch.tensor([written])) if written else {})).logits[0].numpy()
    found = their_logits(path, ids, keys.get("num_labels", 0), written)
    return float(numpy.abs(found - wanted).max() / numpy.abs(wanted).max())


def main():
    llama_cpp.llama_backend_init()
    llama_cpp.llama_log_set(errors_only, None)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for family in sys.argv[2:] or MODELS:
            here = difference(sys.argv[1], family, folder)
            print(f"{family:<20}{here:.1e}", flush=True)
            failed |= here > (1e-3 if family in ("gpt2", "bert") else 1e-4)
    sys.exit(failed)


main()
