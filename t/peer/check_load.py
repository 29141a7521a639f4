#!/usr/bin/env python3
"""Load a compressed-tensors directory in transformers and hold every quantised weight against the file.

What is checked: no missing, unexpected or mismatched key; the configuration as the library understands it is that of
the file; the modules with a scheme are those with a scale in the
file; the weight that the library decompresses is, element for element, what this script makes of the bytes with numpy
(its unpackers share no code with the library); 16 tokens can be generated. With --original, also: every tensor that is
not quantised is the original's, byte for byte, and no module is further from its original than zeros would be.
Exits 1 with a line for each difference. usage: check_load.py DIR ... [--original DIR]"""
import argparse
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

WIDTH = {"BOOL": "u1", "U8": "u1", "I8": "i1", "F8_E4M3": "u1", "F8_E8M0": "u1", "I16": "<i2", "F16": "<f2",
         "BF16": "<u2", "I32": "<i4", "U32": "<u4", "F32": "<f4", "I64": "<i8", "F64": "<f8"}
QPARAMS = ("weight_packed", "weight_scale", "weight_zero_point", "weight_global_scale", "weight_shape",
           "input_scale", "input_zero_point", "input_global_scale")
E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6], dtype=np.float32)
E2M1 = np.concatenate([E2M1, -E2M1])


def e4m3_table():
    """Sign, 4 bits of exponent with bias 7, 3 of mantissa; 0x7f and 0xff are NaN."""
    b = np.arange(256)
    e, m = (b >> 3) & 15, b & 7
    v = np.where(e == 0, m * 2.0 ** -9, (8 + m) * 2.0 ** (e - 10.0))
    v[(b & 127) == 127] = np.nan
    return np.where(b >= 128, -v, v).astype(np.float32)


E4M3 = e4m3_table()


def read_dir(directory):
    """Every tensor of a model directory: name -> (dtype, array of its bytes in their own type)."""
    index, tensors = os.path.join(directory, "model.safetensors.index.json"), {}
    files = ["model.safetensors"]
    if os.path.exists(index):
        with open(index, encoding="utf-8") as f:
            files = sorted(set(json.load(f)["weight_map"].values()))
    for name in files:
        data = np.memmap(os.path.join(directory, name), dtype=np.uint8, mode="r")
        n = int(data[:8].view("<u8")[0])
        for key, t in json.loads(bytes(data[8:8 + n])).items():
            if key != "__metadata__":
                b, e = t["data_offsets"]
                v = np.array(data[8 + n + b:8 + n + e]).view(WIDTH[t["dtype"]])
                tensors[key] = t["dtype"], v.reshape(t["shape"])
    return tensors


def floats(tensor):
    dtype, v = tensor
    if dtype == "BF16":
        return (v.astype(np.uint32) << 16).view(np.float32)
    return E4M3[v] if dtype == "F8_E4M3" else v.astype(np.float32)


def rounded(v, dtype):
    """fp32 to the type that the weight is loaded in, and back: to nearest, ties to even."""
    if dtype == torch.bfloat16:
        b = np.ascontiguousarray(v, dtype=np.float32).view(np.uint32)
        return ((b + 0x7fff + ((b >> 16) & 1)) & np.uint32(0xffff0000)).view(np.float32)
    return v.astype(np.float16).astype(np.float32) if dtype == torch.float16 else v.astype(np.float32)


def unpack_int(words, bits, cols):
    """Rows of a bit string, lowest bit first: element c is bits [c * bits, c * bits + bits), offset binary."""
    rows = words.shape[0]
    b = np.unpackbits(np.ascontiguousarray(words).view(np.uint8).reshape(rows, -1), axis=1, bitorder="little")
    b = b[:, :cols * bits].reshape(rows, cols, bits).astype(np.int32)
    return (b << np.arange(bits)).sum(axis=2) - (1 << (bits - 1))


def unpack_fp4(b):
    return E2M1[np.stack([b & 15, b >> 4], axis=2).reshape(b.shape[0], -1)]


def spread(s, rows, cols, args):
    """A scale or zero point for every element."""
    if args.strategy == "block":
        h, w = args.block_structure
        return s.repeat(h, axis=0)[:rows].repeat(w, axis=1)[:, :cols]
    if args.strategy in ("group", "tensor_group"):
        s = s.repeat(args.group_size, axis=1)[:, :cols]
    return np.broadcast_to(s, (rows, cols))


def scale_shape(rows, cols, args):
    """What the strategy asks of a scale or zero point; broadcasting would accept less."""
    if args.strategy == "block":
        h, w = args.block_structure
        return -(-rows // h), -(-cols // w)
    if args.strategy in ("group", "tensor_group"):
        return rows, -(-cols // args.group_size)
    return (rows, 1) if args.strategy == "channel" else (1,)


def dequantise(module, file, scheme):
    """The weight of a module, in fp32 before its last rounding."""
    args = scheme.weights
    get = lambda suffix: file.get(f"{module}.{suffix}")
    scale = get("weight_scale")
    packed, plain, zero = get("weight_packed"), get("weight"), get("weight_zero_point")
    if packed is None and plain is None:
        raise ValueError("the file has a scale, but no weight")
    if packed is not None and packed[0] == "I32" and get("weight_shape") is None:
        raise ValueError("packed, but no weight_shape")
    if get("weight_g_idx") is not None:
        raise ValueError("weight_g_idx is not understood here")
    if not args.symmetric and zero is None:
        raise ValueError("not symmetric, but no zero point")
    fmt = getattr(scheme.format, "value", scheme.format)
    if packed is not None and packed[0] == "I32":
        rows, cols = (int(v) for v in get("weight_shape")[1])
        code = unpack_int(packed[1], args.num_bits, cols)
        if zero is not None:
            zero = unpack_int(zero[1].T, args.num_bits, rows).T
    elif packed is not None:
        code = unpack_fp4(packed[1])
    elif plain[0] == "F8_E4M3":
        code = E4M3[plain[1]]
    else:
        code = plain[1].astype(np.int32)
        zero = None if zero is None else zero[1].astype(np.int32)
    rows, cols = code.shape
    for what, v in (("scale", scale[1]), ("zero point", zero)):
        if v is not None and v.shape != scale_shape(rows, cols, args):
            raise ValueError(f"{what} is {list(v.shape)}, want {list(scale_shape(rows, cols, args))}")
    s = np.exp2(scale[1].astype(np.float32) - 127) if scale[0] in ("U8", "F8_E8M0") else floats(scale)
    if get("weight_global_scale") is not None:
        s = s / floats(get("weight_global_scale"))
    if zero is not None:
        code = code - spread(zero, rows, cols, args)
    return fmt, code.astype(np.float32) * spread(s, rows, cols, args)


def config_differences(directory, model):
    """quantization_config of the file beside what the loader made of it."""
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
        file = json.load(f)["quantization_config"]
    made = json.loads(json.dumps(model.config.quantization_config.to_dict(), default=str))
    for key in sorted(set(file) | set(made)):
        if key in made and made[key] != file.get(key):
            yield f"quantization_config.{key}: the file has {file.get(key)!r}, the library {made[key]!r}"
        elif key not in made and key not in ("sparsity_config", "transform_config", "version"):
            yield f"quantization_config.{key}: the library leaves it out"


def check(directory, a):
    """Prints what is wrong with one directory; returns whether nothing is."""
    wrong = []
    file = read_dir(directory)
    model, info = AutoModelForCausalLM.from_pretrained(directory, dtype="auto", output_loading_info=True)
    model.eval()
    wrong += config_differences(directory, model)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        for key in info.get(what) or ():
            wrong.append(f"{what}: {key}")

    schemes = {n: m.quantization_scheme for n, m in model.named_modules()
               if getattr(getattr(m, "quantization_scheme", None), "weights", None) is not None}
    stored = {n[:-len(".weight_scale")] for n in file if n.endswith(".weight_scale")}
    wrong += [f"{n}: the configuration has a scheme, the file has no scale" for n in sorted(set(schemes) - stored)]
    wrong += [f"{n}: the file has a scale, the configuration has no scheme" for n in sorted(stored - set(schemes))]
    if not schemes:
        wrong.append("no module is quantised")

    if os.path.exists(os.path.join(directory, "tokenizer.json")):
        tok = AutoTokenizer.from_pretrained(directory)
        ids = tok(a.prompt, return_tensors="pt")["input_ids"]
        show = lambda v: repr(tok.decode(v))
    else:
        ids, show = torch.arange(8)[None] % model.config.vocab_size, lambda v: str(v.tolist())
    with torch.no_grad():  # the first forward pass decompresses the weights
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, min_new_tokens=16,
                             do_sample=False)
    if out.shape[1] != ids.shape[1] + 16:
        wrong.append(f"{out.shape[1] - ids.shape[1]} tokens generated, want 16")
    print("generated", show(out[0, ids.shape[1]:]))

    original = read_dir(a.original) if a.original else None
    modules, formats, elements, errors = dict(model.named_modules()), {}, 0, []
    for name in sorted(set(schemes) & stored):
        weight = modules[name].weight
        got = weight.detach().float().numpy()
        try:
            fmt, want = dequantise(name, file, schemes[name])
        except ValueError as e:
            wrong.append(f"{name}: {e}")
            continue
        want = rounded(want, weight.dtype)
        formats[fmt] = formats.get(fmt, 0) + 1
        if got.shape != want.shape:
            wrong.append(f"{name}: library {list(got.shape)}, file {list(want.shape)}")
            continue
        bad = np.argwhere(~(got == want))
        elements += got.size
        if len(bad):
            r, c = bad[0]
            wrong.append(f"{name}: {len(bad)} of {got.size} elements differ, first [{r}, {c}]: "
                         f"library {got[r, c]:.9g}, file {want[r, c]:.9g}")
        if original:
            w = floats(original[f"{name}.weight"])
            errors.append((float(np.linalg.norm(want - w) / max(np.linalg.norm(w), 1e-30)), name))
            if not errors[-1][0] < 1:
                wrong.append(f"{name}: relative error {errors[-1][0]:.4g} from the original")
    if original:
        quantised = {f"{n}.{s}" for n in stored for s in QPARAMS + ("weight",)}
        for key in sorted(set(original) - quantised):
            if key not in file:
                if not (key == "lm_head.weight" and model.config.tie_word_embeddings):
                    wrong.append(f"{key}: in the original, not in the file")
            elif file[key][0] != original[key][0] or file[key][1].tobytes() != original[key][1].tobytes():
                wrong.append(f"{key}: not quantised, yet not the original's bytes")
        scales = tuple(".self_attn." + s for s in ("k_scale", "v_scale", "q_scale"))  # of a quantised cache
        wrong += [f"{key}: not in the original" for key in sorted(set(file) - set(original) - quantised)
                  if not key.endswith(scales)]
        if errors:
            print("relative error: mean %.5f, worst %.5f %s" % (sum(e for e, _ in errors) / len(errors), *max(errors)))

    for line in wrong:
        print(f"check_load: {directory}: {line}", file=sys.stderr)
    print(f"{directory}: {len(schemes)} modules ({', '.join(f'{n} {f}' for f, n in sorted(formats.items(), key=str))}), "
          f"{elements} elements, {len(wrong)} differences", flush=True)
    return not wrong


def main():
    ap = argparse.ArgumentParser(description="load compressed-tensors directories and compare every quantised weight")
    ap.add_argument("model", nargs="+")
    ap.add_argument("--original", help="the directory that they were made from")
    ap.add_argument("--prompt", default="The history of the printing press begins")
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    bad = [d for d in a.model if not check(d, a)]
    if len(a.model) > 1:
        print(f"{len(a.model)} checkpoints, {len(bad)} with differences")
    return 1 if bad else 0


sys.exit(main())
