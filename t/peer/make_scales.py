"""Static scales of activations as LLM Compressor calibrates them, a batch a sample, plain rounding.
usage: make_scales.py t/data/tiny TOKENIZER_DIR OUT     (t/data/scales.tsv) lines: model, recipe, tensor, values"""
import json, os, sys, tempfile
os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier

def cache(strategy):
    return dict(num_bits=8, type="float", symmetric=True, dynamic=False, strategy=strategy, observer="static_minmax")

LINEAR = dict(targets=["Linear"], ignore=["lm_head"])
RECIPES = {
    "fp8": lambda: dict(LINEAR, scheme="FP8", kv_cache_scheme=cache("tensor")),
    "nvfp4": lambda: dict(LINEAR, scheme="NVFP4", kv_cache_scheme=cache("attn_head")),
    "cache": lambda: dict(kv_cache_scheme=cache("tensor")),
}
tiny, tokenizer = sys.argv[1], AutoTokenizer.from_pretrained(sys.argv[2])
torch.set_num_threads(1)
out = open(sys.argv[3], "w")
for name in ("bias", "f32"):
    ids = [json.loads(line)["input_ids"] for line in open(os.path.join(tiny, name + ".jsonl"))]
    data = Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(i) for i in ids]})
    for recipe, args in RECIPES.items():
        m = AutoModelForCausalLM.from_pretrained(os.path.join(tiny, name), attn_implementation="eager")
        oneshot(model=m, processor=tokenizer, recipe=QuantizationModifier(**args()), dataset=data,
                max_seq_length=max(map(len, ids)), num_calibration_samples=len(ids), batch_size=1,
                shuffle_calibration_samples=False, pad_to_max_length=False, pipeline="sequential")
        with tempfile.TemporaryDirectory() as d:
            m.save_pretrained(d, save_compressed=True)
            for key, t in sorted(load_file(os.path.join(d, "model.safetensors")).items()):
                if key.endswith(("input_scale", "input_global_scale", "k_scale", "v_scale")):
                    print(name, recipe, key, " ".join("%.9g" % v for v in t.float().flatten()), sep="\t", file=out)
