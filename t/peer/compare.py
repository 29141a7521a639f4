"""Hessians and codes of a work directory (--sequential layer, llmc-hessian --keep) beside those of hessian.py.
usage: compare.py WORK OURS PEER   (OURS: our checkpoint; PEER: hessian.py's --out)
Prints, by layer: relative error of each input's Hessian in Frobenius norm, share of equal codes."""
import argparse, glob, os
import numpy as np
from safetensors import safe_open

ap = argparse.ArgumentParser()
ap.add_argument("work"); ap.add_argument("ours"); ap.add_argument("peer")
a = ap.parse_args()
POINTS = {"attn": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "o": ["self_attn.o_proj"],
          "mlp": ["mlp.gate_proj", "mlp.up_proj"], "down": ["mlp.down_proj"]}
ours = safe_open(os.path.join(a.ours, "model.safetensors"), "np")
peer = safe_open(os.path.join(a.peer, "model", "model.safetensors"), "np")

def codes(f, name):
    w = f.get_tensor(name + ".weight_packed").view(np.uint32)
    return (w[..., None] >> np.arange(0, 32, 4, dtype=np.uint32)) & 15

def ours_hessian(layer, point):
    f = safe_open(os.path.join(a.work, "hessian", str(layer), point + ".safetensors"), "np")
    s = f.get_tensor("sum"); n = int((2 * len(s)) ** 0.5)
    h = np.zeros((n, n)); h[np.tril_indices(n)] = s
    return 2 * (h + np.tril(h, -1).T), int(f.metadata()["sequences"])

layers = len(glob.glob(os.path.join(a.work, "hessian", "*")))
equal_all = total_all = 0
for l in range(layers):
    line, equal, total = [], 0, 0
    for point, modules in POINTS.items():
        h, n = ours_hessian(l, point)
        for m in modules:
            name = f"model.layers.{l}.{m}"
            p = safe_open(os.path.join(a.peer, "hessian", name + ".safetensors"), "np")
            ph = p.get_tensor("h").astype(np.float64)
            assert n == int(p.get_tensor("n")[0]), name
            if m == modules[0]: line.append(f"{point} {np.linalg.norm(h - ph) / np.linalg.norm(ph):.2e}")
            x, y = codes(ours, name), codes(peer, name)
            equal += int((x == y).sum()); total += x.size
            s, t = ours.get_slice(name + ".weight_scale"), peer.get_slice(name + ".weight_scale")
    print(f"layer {l}: {'  '.join(line)}  codes equal {100 * equal / total:.2f} %")
    equal_all += equal; total_all += total
print(f"all: codes equal {100 * equal_all / total_all:.2f} %")
