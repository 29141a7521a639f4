#!/usr/bin/env python3
"""Compress every family of t/data/arch with llmc and load the result in transformers, as it is and as llmc-pack
--dequantize makes a plain model of it. In float32, hidden states after each layer, logits and the loss of each window
are held beside those of llmc-eval: of the plain model they must be equal to rounding of sums. Loaded as it is, the
library has weights that are not rounded to bfloat16 and is further off; once they are, its logits must be equal, too.
No key may be missing or unexpected then. Exits 1 otherwise.
usage: check_families.py BIN_DIR T_DATA_DIR [NAME...]"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers
from safetensors.torch import load_file

import make_arch

WINDOW = 16


def tokens(path, count, length):
    g = torch.Generator().manual_seed(7)
    ids = torch.randint(0, 29, (count, length), generator=g)
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps({"input_ids": row.tolist()}) + "\n" for row in ids)
    return ids


def load(directory):
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
        auto = transformers.AutoModelForImageTextToText if "vision_config" in json.load(f) else \
            transformers.AutoModelForCausalLM
    model, info = auto.from_pretrained(directory, dtype="auto", attn_implementation="eager", output_loading_info=True)
    wrong = [f"{kind}: {sorted(info[kind])[:3]}" for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
             if info[kind]]
    return torch.nn.Module.float(model).eval(), wrong  # asked for float32, Mixtral's experts stay bfloat16


def distance(ours, model, ids):
    """Of logits, over those of the model."""
    logits = torch.cat([make_arch.run(model, row)[1] for row in ids])
    return float((ours - logits).norm() / logits.norm())


def check(tools, data, name, tmp):
    source, out = os.path.join(tmp, name), os.path.join(tmp, name + ".out")
    make_arch.fill(data, name, source)
    calib, score = os.path.join(tmp, "calib.jsonl"), os.path.join(tmp, "eval.jsonl")
    tokens(calib, 16, 24)
    ids = tokens(score, 4, WINDOW)
    subprocess.run([os.path.join(tools, "llmc"), "run", source, "-s", "W4A16", "-g", "16", "-d", calib, "-n", "16",
                    "-l", "24", "-q", "-o", out], check=True, stdout=subprocess.DEVNULL)
    evaluate = [os.path.join(tools, "llmc-eval"), "-q", "-m", out, "-d", score, "-l", str(WINDOW)]
    lines = subprocess.run(evaluate + ["--each"], check=True, capture_output=True, text=True).stdout.splitlines()
    subprocess.run(evaluate + ["--dump", out + ".dump"], check=True, stdout=subprocess.DEVNULL)
    ours = load_file(out + ".dump")
    loaded, wrong = load(out)
    plain = os.path.join(tmp, name + ".plain")
    subprocess.run([os.path.join(tools, "llmc-pack"), "--dequantize", out, "-q", "-o", plain], check=True,
                   stdout=subprocess.DEVNULL)
    model = make_arch.load(plain, torch.float32)
    runs = [make_arch.run(model, row) for row in ids]
    states = [torch.cat(s) for s in zip(*(r[0] for r in runs))]
    off = max(float((ours[f"hidden.{i}"] - s).norm() / s.norm()) for i, s in enumerate(states))
    head = distance(ours["logits"], model, ids)
    away = distance(ours["logits"], loaded, ids)
    with torch.no_grad():
        for p in loaded.parameters():
            p.copy_(p.bfloat16())
    embed = make_arch.text_model(loaded).embed_tokens
    if hasattr(embed, "scalar_embed_scale"):  # Gemma's, which was rounded with the model
        embed.embed_scale = torch.tensor(embed.scalar_embed_scale)
    rounded = distance(ours["logits"], loaded, ids)
    loss = [float(torch.nn.functional.cross_entropy(r[1][:-1], row[1:])) for r, row in zip(runs, ids)]
    nll = max(abs(a - float(line.split("\t")[1])) for a, line in zip(loss, lines))
    return off, head, nll, away, rounded, wrong


def main():
    ap = argparse.ArgumentParser(description="compressed families beside transformers")
    ap.add_argument("tools", help="where llmc is")
    ap.add_argument("data", help="the directory t/data")
    ap.add_argument("names", nargs="*", help="families (default: all)")
    a = ap.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    bad = 0
    for name in a.names or make_arch.names(a.data):
        with tempfile.TemporaryDirectory() as tmp:
            try:
                off, head, nll, away, rounded, wrong = check(a.tools, a.data, name, tmp)
            except Exception as e:  # of any of the libraries
                off = head = nll = away = rounded = float("nan")
                wrong = [f"{type(e).__name__}: {e}"[:300]]
        bad += not (off <= 1e-5 and head <= 1e-5 and rounded <= 1e-5 and away <= 0.06) or bool(wrong)
        print(f"{name}\thidden states {off:.1e}, logits {head:.1e}, losses {nll:.1e}; as loaded: "
              f"logits {away:.1e}, of weights rounded to bfloat16 {rounded:.1e}\t"
              f"{'; '.join(wrong) or 'loads whole'}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
