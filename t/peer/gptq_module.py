#!/usr/bin/env python3
"""gptq_module.py ROWS COLS [--group N] [--threads N] - seconds that LLM Compressor's own GPTQ takes on the CPU for one
module of random weights and inputs, its factorisation included, beside `bench-gptq --llama`'s line "module"."""
import argparse
import time

import torch
from compressed_tensors.quantization import QuantizationArgs
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight

args = argparse.ArgumentParser()
args.add_argument("rows", type=int)
args.add_argument("cols", type=int)
args.add_argument("--group", type=int, default=128)
args.add_argument("--threads", type=int, default=0)
args = args.parse_args()
if args.threads:
    torch.set_num_threads(args.threads)

torch.manual_seed(1)
weight = torch.randn(1, args.rows, args.cols)
hessian = torch.zeros(1, args.cols, args.cols)
for _ in range(4):
    x = torch.randn(args.cols // 2, args.cols)
    hessian[0] += x.T @ x
hessian /= args.cols
groups = weight.unflatten(-1, (-1, args.group))
low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
scale = torch.maximum(high.abs(), low.abs()) * 2 / 15
kind = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=args.group)

start = time.perf_counter()
with torch.no_grad():
    quantize_weight(weight, hessian, scale, torch.zeros_like(scale), None, kind)
print(f"{args.rows} x {args.cols}: {time.perf_counter() - start:.2f} s with {torch.get_num_threads()} threads")
