#!/usr/bin/env python3
"""Golden vectors of GPTQ where a fifth of the weights is 0, which LLM Compressor 0.10 keeps (0.13 and later do not).

Needs llmcompressor 0.10 and compressed-tensors 0.14 in the Python path. VECTORS is t/golden/vectors: the weight and the
Hessian are those of common/, the weight with 0 where (7 row + 3 column) mod 5 is 0. Writes llmc-0.10/gptq_*_zeros*.
usage: make_zeros.py VECTORS"""
import json
import os
import sys

import torch
import transformers.modeling_utils

if not hasattr(transformers.modeling_utils, "TORCH_INIT_FUNCTIONS"):
    transformers.modeling_utils.TORCH_INIT_FUNCTIONS = {}  # gone from later versions, and not needed here
import llmcompressor
import llmcompressor.modifiers.quantization.calibration as calib
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (QuantizationArgs, QuantizationScheme, QuantizationStatus,
                                             initialize_module_for_quantization)
from llmcompressor.modifiers.quantization.gptq.gptq_quantize import quantize_weight

assert llmcompressor.__version__.startswith("0.10."), llmcompressor.__version__
NAMES = {torch.bfloat16: "BF16", torch.int32: "I32", torch.int64: "I64"}


def common(directory):
    with open(f"{directory}/common/inputs.json", encoding="utf-8") as f:
        index = {t["name"]: t for t in json.load(f)["tensors"]}
    with open(f"{directory}/common/inputs.bin", "rb") as f:
        blob = f.read()
    get = lambda name, dtype: torch.frombuffer(bytearray(blob[index[name]["offset"]:][:index[name]["nbytes"]]),
                                               dtype=dtype).reshape(index[name]["shape"])
    return get("weight", torch.bfloat16), get("hessian_sum", torch.float32), 8


@torch.no_grad()
def case(directory, name, w, h, sequences, symmetric, actorder):
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(
        num_bits=4, type="int", strategy="group", group_size=32, symmetric=symmetric, actorder=actorder,
        observer="memoryless_minmax"))
    net = torch.nn.Module()
    net.lin = torch.nn.Linear(w.shape[1], w.shape[0], bias=False, dtype=w.dtype)
    net.lin.weight.data = w.clone()
    initialize_module_for_quantization(net.lin, scheme)
    net.lin.quantization_status = QuantizationStatus.CALIBRATION
    calib.initialize_observer(net.lin, "weight")
    loss, params = quantize_weight(net.lin, scheme.weights, h.clone() / sequences, 128, 0.01)
    for key, value in params.items():
        p = getattr(net.lin, key)
        p.data = value.to(p.dtype).reshape(p.shape)
    calib.freeze_module_quantization(net.lin)
    compressor = ModelCompressor.from_pretrained_model(net)
    compressor.compress_model(net)
    config = json.loads(json.dumps(compressor.quantization_config.model_dump(), default=str))
    blob, tensors = b"", []
    for key, v in net.state_dict().items():
        data = bytes(v.detach().contiguous().flatten().view(torch.uint8).tolist())
        tensors.append({"name": key.removeprefix("lin."), "dtype": NAMES[v.dtype], "shape": list(v.shape),
                        "offset": len(blob), "nbytes": len(data)})
        blob += data
    path = os.path.join(directory, "llmc-0.10", f"gptq_{name}")
    with open(path + ".bin", "wb") as f:
        f.write(blob)
    with open(path + ".json", "w", encoding="utf-8") as f:
        json.dump({"case": name, "kind": "gptq", "block_size": 128, "dampening_frac": 0.01, "loss": loss,
                   "quantization_config": config, "tensors": tensors}, f, indent=1)
    print(name, loss)


def main():
    directory = sys.argv[1]
    w, h, sequences = common(directory)
    rows, cols = torch.meshgrid(torch.arange(w.shape[0]), torch.arange(w.shape[1]), indexing="ij")
    w[(7 * rows + 3 * cols) % 5 == 0] = 0
    case(directory, "int4_g32_sym_zeros", w, h, sequences, True, None)
    case(directory, "int4_g32_asym_zeros_weight", w, h, sequences, False, "weight")
    case(directory, "int4_g32_sym_zeros_group", w, h, sequences, True, "group")


main()
