#!/usr/bin/env python3
"""Hold a dense checkpoint that llmc-pack --dequantize made against what compressed-tensors makes of the compressed one.

What is checked: transformers loads DENSE as a plain model, without a missing or unexpected key; every weight of every
module equals, element for element, what the library decompresses of COMPRESSED; every other tensor has its bytes.
Exits 1 with a line for each difference. usage: check_dense.py COMPRESSED DENSE"""
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from transformers import AutoModelForCausalLM


def load(directory):
    model, info = AutoModelForCausalLM.from_pretrained(directory, dtype="auto", output_loading_info=True)
    model.eval()
    with torch.no_grad():  # the first forward pass decompresses the weights
        model(torch.arange(8)[None] % model.config.vocab_size)
    return model, info


def main():
    compressed, dense = sys.argv[1:]
    torch.set_num_threads(2)
    wrong = []
    with open(os.path.join(dense, "config.json"), encoding="utf-8") as f:
        if "quantization_config" in json.load(f):
            wrong.append("config.json: still has a quantization_config")
    want, _ = load(compressed)
    got, info = load(dense)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        wrong += [f"{what}: {key}" for key in info.get(what) or ()]
    schemes = {n for n, m in want.named_modules()
               if getattr(getattr(m, "quantization_scheme", None), "weights", None) is not None}
    modules, elements = dict(want.named_modules()), 0
    for name, p in got.state_dict().items():
        module, _, suffix = name.rpartition(".")
        q = getattr(modules[module], suffix).detach()
        if p.dtype != q.dtype or p.shape != q.shape:
            wrong.append(f"{name}: {p.dtype} {list(p.shape)}, the library has {q.dtype} {list(q.shape)}")
            continue
        bad = int((p != q).sum())
        elements += p.numel()
        if bad:
            wrong.append(f"{name}: {bad} of {p.numel()} elements differ")
    for line in wrong:
        print(f"check_dense: {dense}: {line}", file=sys.stderr)
    print(f"{len(schemes)} compressed modules, {elements} elements, {len(wrong)} differences")
    return 1 if wrong or not schemes else 0


sys.exit(main())
