#!/usr/bin/env python3
"""Make the fixtures of t/data/arch, one for each family: config.json and the names and shapes of tensors as
transformers saves them, and what transformers computes: hidden states entering each layer and leaving the last, in
bfloat16 and float32, and logits in float32, for two sequences one after the other, eager attention, eager experts.
Weights are not kept: t/data/mk/arch.pl makes them from the names. usage: make_arch.py T_DATA_DIR [NAME...]"""
import argparse
import json
import os
import re
import subprocess
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

LENGTHS = (8, 5)
BASE = dict(vocab_size=32, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=0, pad_token_id=0)
SLIDE = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA = dict(head_dim=16, query_pre_attn_scalar=24, sliding_window=4)


def rope(kind, theta=10000.0, **more):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=theta, **more))


# name: (class of the configuration, settings)
MODELS = {
    "llama": ("LlamaConfig", dict(head_dim=16, attention_bias=True, mlp_bias=True, **rope(
        "llama3", 5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16))),
    "ministral": ("MinistralConfig", dict(head_dim=16, sliding_window=4, layer_types=SLIDE)),
    "mistral": ("MistralConfig", dict(head_dim=16, sliding_window=4)),
    "qwen2": ("Qwen2Config", dict(use_sliding_window=True, sliding_window=4, max_window_layers=1,
                                  tie_word_embeddings=True)),
    "qwen3": ("Qwen3Config", dict(head_dim=16, attention_bias=True, use_sliding_window=True, sliding_window=4,
                                  layer_types=SLIDE)),
    "gemma": ("GemmaConfig", dict(head_dim=16, num_key_value_heads=1)),
    "gemma2": ("Gemma2Config", dict(attn_logit_softcapping=2.0, final_logit_softcapping=3.0, **GEMMA)),
    "gemma3": ("Gemma3TextConfig", dict(layer_types=SLIDE, **GEMMA, rope_parameters=dict(
        full_attention=dict(rope_type="linear", rope_theta=1e6, factor=8.0),
        sliding_attention=dict(rope_type="default", rope_theta=10000.0)))),
    "phi3": ("Phi3Config", dict(sliding_window=5)),
    "longrope": ("Phi3Config", dict(original_max_position_embeddings=6, **rope(
        "longrope", partial_rotary_factor=0.75, original_max_position_embeddings=6,
        short_factor=[1.0, 1.2, 1.7], long_factor=[1.0, 2.0, 6.0]))),
    "olmo2": ("Olmo2Config", dict(attention_bias=True)),
    "olmo3": ("Olmo3Config", dict(sliding_window=4, layer_types=SLIDE, rope_parameters=dict(
        full_attention=dict(rope_type="yarn", rope_theta=5e5, factor=8.0, original_max_position_embeddings=16),
        sliding_attention=dict(rope_type="default", rope_theta=5e5)))),
    "granite": ("GraniteConfig", dict(embedding_multiplier=6.0, attention_multiplier=0.3, residual_multiplier=0.22,
                                      logits_scaling=3.0, mlp_bias=True, tie_word_embeddings=True)),
    "smollm3": ("SmolLM3Config", dict(no_rope_layer_interval=2)),
    "exaone4": ("Exaone4Config", dict(sliding_window=4, sliding_window_pattern=2)),
    "qwen3_moe": ("Qwen3MoeConfig", dict(head_dim=16, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=16,
                                         norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[1])),
    "mixtral": ("MixtralConfig", dict(num_local_experts=5, num_experts_per_tok=2, intermediate_size=32,
                                      sliding_window=4)),
    "stacked": ("Qwen3MoeConfig", dict(head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)),
    "fp8": ("Qwen3Config", dict(hidden_size=128, intermediate_size=256, num_hidden_layers=1, head_dim=64)),
    "gemma3_vision": ("Gemma3Config", dict(
        text_config=dict(model_type="gemma3_text", **{**BASE, **GEMMA, "num_hidden_layers": 2}),
        vision_config=dict(model_type="siglip_vision_model", hidden_size=8, intermediate_size=16, num_hidden_layers=1,
                           num_attention_heads=2, image_size=8, patch_size=4, vision_use_head=False),
        mm_tokens_per_image=1, image_token_index=31, boi_token_index=30, eoi_token_index=29)),
    "qwen2_moe": ("Qwen2MoeConfig", dict(num_experts=4, num_experts_per_tok=3, moe_intermediate_size=16,
                                         shared_expert_intermediate_size=32)),
    "olmoe": ("OlmoeConfig", dict(num_experts=4, num_experts_per_tok=2, intermediate_size=16)),
    "seed_oss": ("SeedOssConfig", dict(head_dim=16, attention_bias=True, attention_out_bias=False)),
}


def text_model(model):
    """The decoder: what has layers."""
    m = model.model
    return getattr(m, "language_model", m)


def run(model, ids):
    """Hidden states entering each layer and leaving the last, before the final norm, and the logits."""
    states, hooks, text = [], [], text_model(model)
    for layer in text.layers:
        hooks.append(layer.register_forward_pre_hook(lambda m, args, kw: states.append(args[0] if args else
                     kw["hidden_states"]), with_kwargs=True))
    hooks.append(text.norm.register_forward_pre_hook(lambda m, args: states.append(args[0])))
    with torch.no_grad():
        logits = model(input_ids=ids[None], use_cache=False).logits
    for h in hooks:
        h.remove()
    return [s[0] for s in states], logits[0]


def load(directory, dtype):
    auto = transformers.AutoModelForCausalLM
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
        if "vision_config" in json.load(f):
            auto = transformers.AutoModelForImageTextToText
    extra = dict(experts_implementation="eager")
    if os.path.basename(directory) == "fp8":
        extra["quantization_config"] = transformers.FineGrainedFP8Config(dequantize=True)
    model = auto.from_pretrained(directory, dtype=dtype, attn_implementation="eager", **extra)
    return model.eval()


def expected(directory):
    g = torch.Generator().manual_seed(1)
    sequences = [torch.randint(0, BASE["vocab_size"], (n,), generator=g) for n in LENGTHS]
    out = {"input_ids": torch.cat(sequences).int(), "lengths": torch.tensor(LENGTHS).int()}
    for tag, dtype in (("", torch.bfloat16), ("32", torch.float32)):
        model = load(directory, dtype)
        runs = [run(model, ids) for ids in sequences]
        for i, states in enumerate(zip(*(r[0] for r in runs))):
            out[f"hidden{tag}.{i}"] = torch.cat(states).contiguous()
        if tag:
            out["logits32"] = torch.cat([r[1] for r in runs]).contiguous()
    return out


def configuration(name):
    kind, settings = MODELS[name]
    return getattr(transformers, kind)(**(settings if "text_config" in settings else {**BASE, **settings}))


def names(data):
    return sorted(os.listdir(os.path.join(data, "arch")))


def fill(data, name, out):
    """The fixture's weights, into the directory out."""
    subprocess.run(["perl", os.path.join(data, "mk", "arch.pl"), os.path.join(data, "arch", name), out], check=True)


def stack(lines):
    """Experts in tensors of three dimensions, as transformers has them in memory."""
    shapes = dict((line.split()[0], line.split()[1:]) for line in lines)
    for key in [k for k in shapes if re.search(r"\.experts\.\d+\.", k)]:
        block, expert, module = re.match(r"(.*\.experts)\.(\d+)\.(\w+)\.weight", key).groups()
        kind, rows, cols = shapes.pop(key)
        fused = "down_proj" if module == "down_proj" else "gate_up_proj"
        rows = int(rows) * (1 if module == "down_proj" else 2)
        count = max(int(expert) + 1, int(shapes.get(f"{block}.{fused}", [kind, 0])[1]))
        shapes[f"{block}.{fused}"] = [kind, str(count), str(rows), cols]
    return sorted(" ".join([k, *v]) + "\n" for k, v in shapes.items())


def fp8(lines, config):
    """Weights of modules in FP8, a scale for each block of 128 x 128, as DeepSeek stores them."""
    path = os.path.join(config, "config.json")
    with open(path, encoding="utf-8") as f:
        settings = json.load(f)
    settings["quantization_config"] = dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic",
                                           weight_block_size=[128, 128])
    with open(path, "w", encoding="utf-8") as f:
        json.dump(settings, f, indent=2)
    for line in lines:
        name, kind, *shape = line.split()
        if name.endswith("_proj.weight"):
            yield " ".join([name, "F8_E4M3", *shape]) + "\n"
            yield " ".join([name + "_scale_inv", "F32", *(str(-(-int(n) // 128)) for n in shape)]) + "\n"
        else:
            yield line


def make(data, name):
    out = os.path.join(data, "arch", name)
    os.makedirs(out, exist_ok=True)
    config = configuration(name)
    auto = transformers.AutoModelForImageTextToText if hasattr(config, "vision_config") else \
        transformers.AutoModelForCausalLM
    with tempfile.TemporaryDirectory() as tmp:
        model = auto.from_config(config).to(torch.bfloat16)
        model.config.dtype = torch.bfloat16
        model.save_pretrained(tmp)
        os.replace(os.path.join(tmp, "config.json"), os.path.join(out, "config.json"))
        with safe_open(os.path.join(tmp, "model.safetensors"), "pt") as f, \
                open(os.path.join(out, "tensors.txt"), "w", encoding="utf-8") as lines:
            text = [" ".join([key, f.get_slice(key).get_dtype(), *map(str, f.get_slice(key).get_shape())]) + "\n"
                    for key in sorted(f.keys())]
            text = stack(text) if name == "stacked" else fp8(text, out) if name == "fp8" else text
            lines.writelines(text)
        made = os.path.join(tmp, name)
        fill(data, name, made)
        save_file(expected(made), os.path.join(out, "expected.safetensors"))
        os.chmod(os.path.join(out, "expected.safetensors"), 0o644)


def main():
    ap = argparse.ArgumentParser(description="make the fixtures of t/data/arch")
    ap.add_argument("data", help="the directory t/data")
    ap.add_argument("names", nargs="*", help="models to make (default: all)")
    a = ap.parse_args()
    torch.set_num_threads(1)
    for name in a.names or MODELS:
        make(a.data, name)
        print(name)


if __name__ == "__main__":
    main()
