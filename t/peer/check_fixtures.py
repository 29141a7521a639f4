#!/usr/bin/env python3
"""Hold the fixtures of t/data against the libraries that are installed: token ids must be equal, hidden states and
losses of the tiny models equal to rounding. Exits 1 with a line for each difference.
usage: check_fixtures.py T_DATA_DIR"""
import argparse
import glob
import os
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

import make_arch

LIMIT = {"": 4e-2, "32": 2e-5}  # of the norm; a bf16 run depends on the processor, by sqrt 2 of its error


def read(path):
    with open(path, "rb") as f:
        return f.read()


def check_tokens(directory):
    """NAME.ids against NAME.json; the order of its lines is in the README there."""
    hard = read(os.path.join(directory, "hard.txt")).decode()
    invalid = read(os.path.join(directory, "hard-invalid.txt")).decode(errors="replace")
    cases = [(hard, True)] + [(line, False) for line in hard.split("\n")] + [(invalid, False)]
    for path in sorted(glob.glob(os.path.join(directory, "*.json"))):
        tok = Tokenizer.from_file(path)
        want = read(path[:-len("json")] + "ids").decode().split("\n")[:-1]
        got = [" ".join(map(str, tok.encode(text, add_special_tokens=special).ids)) for text, special in cases]
        if len(got) != len(want):
            yield f"{path}: {len(want)} lines of ids, want {len(got)}"
        yield from (f"{path}: line {i + 1} of the ids differs" for i, (g, w) in enumerate(zip(got, want)) if g != w)


def run(model, ids):
    """Hidden states entering each layer and leaving the last, before the final norm, and the losses of each token."""
    states = []
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda m, args: states.append(args[0]))
    model.model.norm.register_forward_pre_hook(lambda m, args: states.append(args[0]))
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits.float()
    nll = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return {f"hidden{{}}.{i}": s.float() for i, s in enumerate(states)} | {"nll{}": nll}


def check_model(directory):
    want = load_file(directory + ".expected.safetensors")
    ids = want["input_ids"].long()
    for tag, dtype in (("", "auto"), ("32", torch.float32)):
        model = LlamaForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="eager").eval()
        for name, got in run(model, ids).items():
            w = want[name.format(tag)].flatten()
            off = float((got.flatten() - w).norm() / w.norm())
            if not off <= LIMIT[tag]:
                yield f"{directory}: {name.format(tag)} is off by {off:.3g}, want {LIMIT[tag]:g} at most"


def check_family(data, name):
    want = load_file(os.path.join(data, "arch", name, "expected.safetensors"))
    with tempfile.TemporaryDirectory() as tmp:
        made = os.path.join(tmp, name)
        make_arch.fill(data, name, made)
        got = make_arch.expected(made)
    for key, w in want.items():
        off = float((got[key].double() - w.double()).norm() / w.double().norm())
        limit = LIMIT["32" if "32" in key else ""] * (key.startswith("hidden") or key.startswith("logits"))
        if not off <= limit:
            yield f"{name}: {key} is off by {off:.3g}, want {limit:g} at most"


def main():
    ap = argparse.ArgumentParser(description="hold the fixtures of t/data against the installed libraries")
    ap.add_argument("data", help="the directory t/data")
    a = ap.parse_args()
    torch.set_num_threads(1)
    families = make_arch.names(a.data)
    wrong = list(check_tokens(os.path.join(a.data, "tok")))
    models = sorted(d for d in glob.glob(os.path.join(a.data, "tiny", "*")) if os.path.isdir(d))
    for directory in models:
        wrong += check_model(directory)
    for name in families:
        wrong += check_family(a.data, name)
    for line in wrong:
        print(f"check_fixtures: {line}", file=sys.stderr)
    print(f"{len(glob.glob(os.path.join(a.data, 'tok', '*.json')))} tokenizers, {len(models)} tiny models, "
          f"{len(families)} families, "
          f"{len(wrong)} differences")
    return 1 if wrong else 0


sys.exit(main())
