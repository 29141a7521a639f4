"""Hidden states of every layer beside transformers': relative root mean square error of llmc-eval --dump.
usage: hidden.py LLMC_EVAL MODEL IDS.jsonl [--length 512]   (first window of the first line's input_ids)"""
import argparse, json, os, subprocess, tempfile
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

ap = argparse.ArgumentParser()
ap.add_argument("eval"); ap.add_argument("model"); ap.add_argument("ids"); ap.add_argument("--length", type=int, default=512)
a = ap.parse_args()
ids = torch.tensor([json.loads(open(a.ids).readline())["input_ids"][:a.length]])

def theirs(dtype):
    m = AutoModelForCausalLM.from_pretrained(a.model, dtype=dtype).eval()
    states = []
    for layer in m.model.layers: layer.register_forward_hook(lambda mod, i, o: states.append((o[0] if isinstance(o, tuple) else o).float()))
    with torch.no_grad(): m(input_ids=ids, use_cache=False)
    return [s.reshape(a.length, -1) for s in states]

def ours(dtype):
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([a.eval, "-q", "-m", a.model, "-d", a.ids, "-w", "1", "-l", str(a.length), "--dtype", dtype, "--dump", d + "/x"], check=True)
        t = load_file(d + "/x")
        return [t[f"hidden.{i}"] for i in range(1, sum(n.startswith("hidden.") for n in t))]

err = lambda x, y: ((x - y).norm() / y.norm()).item()
f, b, of, ob = theirs(torch.float32), theirs(torch.bfloat16), ours("float32"), ours("bfloat16")
print("layer  f32: ours to theirs   bf16: ours to f32, theirs to f32, ours to theirs")
for i in range(len(f)): print(f"{i:5}  {err(of[i], f[i]):.2e}   {err(ob[i], f[i]):.2e} {err(b[i], f[i]):.2e} {err(ob[i], b[i]):.2e}")
