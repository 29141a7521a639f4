"""Activations as compressed-tensors rounds them in a Linear's forward, dynamic and static, in bf16 and in f32.
usage: make_round.py OUT.safetensors     (t/data/round.safetensors; tensors are CASE.TYPE, "x.TYPE" the input)"""
import sys
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams, compute_dynamic_scales_and_zp, generate_gparam
from safetensors.torch import save_file

FP8 = dict(num_bits=8, type="float")
CASES = {
    "int8_token": dict(num_bits=8, strategy="token", dynamic=True),
    "int8_token_asym": dict(num_bits=8, strategy="token", dynamic=True, symmetric=False),
    "int4_token": dict(num_bits=4, strategy="token", dynamic=True),
    "fp8_token": dict(FP8, strategy="token", dynamic=True),
    "fp8_tensor": dict(FP8, strategy="tensor", dynamic=True),
    "fp8_group": dict(FP8, strategy="group", group_size=128, dynamic=True),
    "mxfp8": dict(FP8, strategy="group", group_size=32, dynamic=True, scale_dtype="torch.uint8"),
    "mxfp4": dict(num_bits=4, type="float", strategy="group", group_size=32, dynamic=True, scale_dtype="torch.uint8"),
    "nvfp4": dict(num_bits=4, type="float", strategy="tensor_group", group_size=16, dynamic="local",
                  scale_dtype="torch.float8_e4m3fn"),
    "fp8_static": dict(FP8, strategy="tensor", observer="static_minmax"),
    "int8_static": dict(num_bits=8, strategy="tensor", observer="static_minmax"),
    "int8_static_asym": dict(num_bits=8, strategy="tensor", symmetric=False, observer="static_minmax"),
}

torch.manual_seed(7)
x = torch.randn(1, 4, 256) * torch.exp(1.5 * torch.randn(1, 4, 256))
x[0, 1] = 0
x[0, 2, :32] = 0
x[0, 3, 40:80] *= 1e-6
x[0, 3, 100] = 300
seen = 0.6 * x  # what calibration saw: some values lie beyond
out = {}
for dtype, tag in ((torch.bfloat16, "bf16"), (torch.float32, "f32")):
    v, s = x.to(torch.bfloat16).to(dtype), seen.to(torch.bfloat16).to(dtype)
    out[f"x.{tag}"] = v[0]
    for name, kw in CASES.items():
        args, gs = QuantizationArgs(**kw), None
        if args.strategy == "tensor_group":
            gs = generate_gparam(s.min().reshape(1), s.max().reshape(1))
            out[f"{name}.global_scale.{tag}"] = gs
        if args.dynamic:
            scale, zero = compute_dynamic_scales_and_zp(v, args, None, gs)
        else:
            scale, zero = calculate_qparams(s.min().reshape(1), s.max().reshape(1), args)
            out[f"{name}.range.{tag}"] = torch.stack([s.min(), s.max()]).float()
            out[f"{name}.scale.{tag}"], out[f"{name}.zero.{tag}"] = scale, zero
        out[f"{name}.{tag}"] = fake_quantize(v, scale, zero, args, gs)[0]
# clone: views would be written with all that they are views of
save_file({k: t.clone().contiguous() for k, t in out.items()}, sys.argv[1])
