#!/usr/bin/env python3
"""Perplexity of a model directory, plain or compressed-tensors, as transformers computes it.

The text fields of a JSON-lines file are joined by --join (default: a blank line), tokenised as one text and cut into
windows that do not overlap; a window of L tokens scores its last L - 1.
usage: ppl.py DIR eval.jsonl [--tokenizer DIR] [--windows 40] [--length 512] [--dtype bfloat16]"""
import argparse
import json
import math
import os
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ap = argparse.ArgumentParser(description="perplexity of a model directory on JSON lines of text")
ap.add_argument("model")
ap.add_argument("data", help="JSON lines with a text field")
ap.add_argument("--tokenizer", help="directory of the tokenizer (default: the model)")
ap.add_argument("--windows", type=int, default=40)
ap.add_argument("--length", type=int, default=512)
ap.add_argument("--dtype", default="bfloat16", help="bfloat16, float16 or float32")
ap.add_argument("--join", default="\n\n", help="what stands between two texts")
ap.add_argument("--threads", type=int, default=0)
a = ap.parse_args()
if a.threads:
    torch.set_num_threads(a.threads)

with open(a.data, encoding="utf-8") as f:
    text = a.join.join(json.loads(line)["text"] for line in f)
ids = AutoTokenizer.from_pretrained(a.tokenizer or a.model)(text)["input_ids"]
count = min(a.windows, len(ids) // a.length)
windows = torch.tensor(ids[: count * a.length]).view(count, a.length)
model = AutoModelForCausalLM.from_pretrained(a.model, dtype=getattr(torch, a.dtype)).eval()
start, nll = time.perf_counter(), 0.0
with torch.no_grad():
    for w in windows:
        logits = model(input_ids=w[None], use_cache=False).logits[0, :-1].float()
        nll += torch.nn.functional.cross_entropy(logits, w[1:], reduction="sum").item()
scored = count * (a.length - 1)
print("PPL", json.dumps({"dir": a.model, "ppl": round(math.exp(nll / scored), 4), "nll": round(nll / scored, 6),
                         "tokens": scored, "windows": count, "dtype": a.dtype,
                         "seconds": round(time.perf_counter() - start, 1)}))
