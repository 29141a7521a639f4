"""Make the tiny random Llama models of t/data/tiny and what transformers computes with them: hidden states entering each
layer, and logits, in the model's type and in float32, with eager attention. usage: make_tiny.py OUT_DIR"""
import argparse, os
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

BASE = dict(vocab_size=256, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=True,
            bos_token_id=0, eos_token_id=0, pad_token_id=0)
rope = lambda t, theta=10000.0, **k: dict(rope_parameters=dict(rope_type=t, rope_theta=theta, **k))
MODELS = {
    "base": (torch.bfloat16, {}),
    "bias": (torch.bfloat16, dict(attention_bias=True, mlp_bias=True, num_key_value_heads=2)),
    "llama3": (torch.bfloat16, dict(tie_word_embeddings=False, num_key_value_heads=1, **rope("llama3", 500000.0, factor=8.0,
               low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16))),
    "yarn": (torch.bfloat16, rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    "linear": (torch.bfloat16, rope("linear", factor=2.5)),
    "dynamic": (torch.bfloat16, dict(max_position_embeddings=32, **rope("dynamic", factor=2.0))),
    "headdim": (torch.bfloat16, dict(head_dim=32, num_key_value_heads=2)),
    "f16": (torch.float16, {}),
    "f32": (torch.float32, dict(num_key_value_heads=2)),
    "sharded": (torch.bfloat16, {}),
}

ap = argparse.ArgumentParser()
ap.add_argument("out")
a = ap.parse_args()
for n, (name, (dt, extra)) in enumerate(MODELS.items()):
    torch.manual_seed(n)
    m = LlamaForCausalLM._from_config(LlamaConfig(**{**BASE, **extra}), attn_implementation="eager").eval()
    with torch.no_grad():
        for k, p in m.named_parameters():  # activations of a trained model's size
            if p.ndim == 2: p.normal_(0, 1.4 / p.shape[1] ** 0.5 if "embed" not in k else 0.7)
            elif k.endswith("bias"): p.normal_(0, 0.3)
            else: p.uniform_(0.5, 1.5)
    m = m.to(dt)
    m.config.dtype = dt
    d = os.path.join(a.out, name)
    m.save_pretrained(d, max_shard_size="100KB" if name == "sharded" else "5GB")
    try: os.remove(os.path.join(d, "generation_config.json"))
    except FileNotFoundError: pass
    ids = torch.randint(0, 256, (2, 48))
    out = {"input_ids": ids.int()}
    for tag, t in (("", dt), ("32", torch.float32)):  # loaded anew: m.to(dt) would have rounded the rope frequencies too
        mm = LlamaForCausalLM.from_pretrained(d, dtype=t, attn_implementation="eager").eval()
        states, hooks = [], []
        for layer in mm.model.layers:
            hooks.append(layer.register_forward_hook(lambda mod, i, o: states.append(o[0] if isinstance(o, tuple) else o)))
        with torch.no_grad():
            r = mm(input_ids=ids, use_cache=False, output_hidden_states=True)
        for h in hooks: h.remove()
        for i, s in enumerate([r.hidden_states[0]] + states): out[f"hidden{tag}.{i}"] = s.float().reshape(96, -1).contiguous()
        out[f"nll{tag}"] = torch.nn.functional.cross_entropy(r.logits[:, :-1].float().reshape(-1, 256), ids[:, 1:].reshape(-1),
                                                             reduction="none").reshape(2, 47)
    save_file(out, os.path.join(a.out, name + ".expected.safetensors"))
    open(os.path.join(a.out, name + ".jsonl"), "w").write("".join('{"input_ids": %s}\n' % r.tolist() for r in ids))
