"""LLM Compressor's GPTQ on given tokens, keeping the Hessians that it used.
usage: hessian.py --model DIR --data IDS.jsonl --out DIR [--scheme W4A16] [--group 64] [--threads 2]
Writes DIR/hessian/MODULE.safetensors ("h" F32 [n, n] = sum of 2 x x', "n" sequences) and the checkpoint DIR/model, and
prints seconds."""
import argparse, json, os, time
import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from compressed_tensors.quantization import preset_name_to_scheme
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier

ap = argparse.ArgumentParser()
ap.add_argument("--model", required=True); ap.add_argument("--data", required=True); ap.add_argument("--out", required=True)
ap.add_argument("--scheme", default="W4A16"); ap.add_argument("--group", type=int, default=64)
ap.add_argument("--threads", type=int, default=2); ap.add_argument("--hessians", action="store_true")
ap.add_argument("--attention", default="sdpa", help="sdpa or eager: two equivalent runs")
ap.add_argument("--layers", type=int, help="only so many layers of the model")
a = ap.parse_args()
torch.set_num_threads(a.threads)
ids = [json.loads(l)["input_ids"] for l in open(a.data)]
model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.bfloat16, attn_implementation=a.attention,
                                             **({"num_hidden_layers": a.layers} if a.layers else {}))
names = {m: n for n, m in model.named_modules()}
os.makedirs(os.path.join(a.out, "hessian"), exist_ok=True)

if a.hessians:
    original = GPTQModifier.compress_modules
    def keep(self, *args, **kw):
        for m, h in self._hessians.items():
            save_file({"h": h.float().contiguous(), "n": self._num_samples[m].reshape(1).float()},
                      os.path.join(a.out, "hessian", names[m] + ".safetensors"))
        return original(self, *args, **kw)
    GPTQModifier.compress_modules = keep

scheme = preset_name_to_scheme(a.scheme, ["Linear"])
if scheme.weights.strategy == "group" and scheme.weights.type == "int":
    scheme.weights.group_size = a.group
t = time.perf_counter()
oneshot(model=model, recipe=GPTQModifier(ignore=["lm_head"], config_groups={"group_0": scheme}),
        dataset=Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(i) for i in ids]}),
        max_seq_length=max(map(len, ids)), num_calibration_samples=len(ids), shuffle_calibration_samples=False,
        pad_to_max_length=False, batch_size=1, pipeline="sequential")
model.save_pretrained(os.path.join(a.out, "model"), save_compressed=True)
print("seconds %.1f" % (time.perf_counter() - t))
AutoTokenizer.from_pretrained(a.model).save_pretrained(os.path.join(a.out, "model"))
