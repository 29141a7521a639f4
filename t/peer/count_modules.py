#!/usr/bin/env python3
"""Modules that llmc-shard --plan lists from a config.json alone, beside those that transformers makes of it on the meta
device: names and shapes of every Linear of the decoder and of its head, experts of stacked tensors one by one.
Exits 1 where they differ. usage: count_modules.py LLMC_SHARD CONFIG_DIR..."""
import argparse
import os
import re
import subprocess
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers


def theirs(directory):
    config = transformers.AutoConfig.from_pretrained(directory)
    auto = transformers.AutoModelForImageTextToText if hasattr(config, "vision_config") else \
        transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
    out = set()
    for name, module in model.named_modules():
        if re.search(r"vision|projector", name):
            continue
        if isinstance(module, torch.nn.Linear) and not (name.endswith("lm_head") and tied(config)):
            out.add((name, tuple(module.weight.shape)))
        elif type(module).__name__.endswith("Router"):
            out.add((name, tuple(module.weight.shape)))
        elif hasattr(module, "gate_up_proj") and isinstance(module.gate_up_proj, torch.nn.Parameter):
            n, rows, cols = module.gate_up_proj.shape
            for e in range(n):
                out |= {(f"{name}.{e}.gate_proj", (rows // 2, cols)), (f"{name}.{e}.up_proj", (rows // 2, cols)),
                        (f"{name}.{e}.down_proj", tuple(module.down_proj.shape[1:]))}
    return out


def tied(config):
    return config.tie_word_embeddings


def usual(name):
    """Names of one checkpoint layout: a decoder of its own, experts as Qwen calls them."""
    name = re.sub(r"^model\.language_model\.|^language_model\.model\.", "model.", name).replace("block_sparse_moe", "mlp")
    for old, new in (("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj")):
        name = re.sub(rf"\.{old}$", f".{new}", name)
    return name


def ours(tool, directory):
    text = subprocess.run([tool, "--plan", "-m", directory, "-s", "W8A16", "-g", "-1"], check=True,
                          capture_output=True, text=True).stdout
    out = set()
    for line in text.splitlines():
        if not line.startswith("#"):
            name, shape, _ = line.split("\t")
            out.add((name, tuple(int(n) for n in re.findall(r"\d+", shape))))
    return out


def main():
    ap = argparse.ArgumentParser(description="modules of a configuration beside those of transformers")
    ap.add_argument("shard", help="llmc-shard")
    ap.add_argument("directories", nargs="+", help="with a config.json")
    a = ap.parse_args()
    bad = 0
    for directory in a.directories:
        x = {(usual(n), s) for n, s in ours(a.shard, directory)}
        y = {(usual(n), s) for n, s in theirs(directory)}
        print(f"{os.path.basename(directory)}\t{len(x)} modules\t{len(y)} in transformers\t"
              f"{'equal' if x == y else 'DIFFERENT'}")
        for name, shape in sorted(x ^ y)[:10]:
            print(f"  {'ours' if (name, shape) in x else 'theirs'} alone: {name} {shape}")
        bad += x != y
    return 1 if bad else 0


sys.exit(main())
