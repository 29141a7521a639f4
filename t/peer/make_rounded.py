"""What transformers and compressed-tensors compute, rounding activations, with checkpoints that llmc makes of a tiny
f32 model by plain rounding. usage: make_rounded.py BIN t/data/tiny OUT     (t/data/rounded.tsv)
Lines: mean negative log likelihoods of the two samples, the same without rounding activations, arguments of
QuantizationModifier."""
import json, os, subprocess, sys, tempfile
os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

LINEAR = "targets: [Linear], ignore: [lm_head]"
RECIPES = [f"{LINEAR}, scheme: {s}" for s in ("W8A8", "FP8", "FP8_DYNAMIC", "NVFP4", "MXFP4", "MXFP8")]
INT8 = "{targets: [Linear], weights: {num_bits: 8, strategy: channel}, input_activations: {%s}}"
for args in ("strategy: token, dynamic: true, symmetric: false", "strategy: tensor",
             "strategy: tensor, symmetric: false", "strategy: tensor, dynamic: true, symmetric: false"):
    RECIPES.append("config_groups: {g: %s}, ignore: [lm_head]" % (INT8 % args))
CACHE = "kv_cache_scheme: {num_bits: 8, type: float, strategy: %s}"
RECIPES.append(CACHE % "tensor")
RECIPES.append(f"{LINEAR}, scheme: FP8_DYNAMIC, {CACHE % 'attn_head'}")


def nll(model, ids):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])).item()


def float_weights(model, file):
    """The library expands microscaled floats to bf16 whatever the model's type is; here they are what llmc makes of
    them, which differs where a scale is no power of two."""
    table = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6])
    table = torch.cat([table, -table])
    for name, module in model.named_modules():
        packed = file.get(name + ".weight_packed")
        if getattr(module, "quantization_scheme", None) is not None and hasattr(module, "weight"):
            module.weight.data = module.weight.data.float()
        if packed is None or packed.dtype != torch.uint8:
            continue
        scale, gs = file[name + ".weight_scale"], file.get(name + ".weight_global_scale")
        step = torch.exp2(scale.float() - 127) if scale.dtype == torch.uint8 else scale.float() / gs
        codes = torch.stack([packed & 15, packed >> 4], 2).flatten(1).long()
        module.weight.data = table[codes] * step.repeat_interleave(codes.shape[1] // step.shape[1], 1)


bindir, tiny, out = sys.argv[1:4]
torch.set_num_threads(1)
samples = [json.loads(line)["input_ids"] for line in open(os.path.join(tiny, "f32.jsonl"))]
with open(out, "w") as f, tempfile.TemporaryDirectory() as d:
    for n, args in enumerate(RECIPES):
        recipe, model = os.path.join(d, "%d.yaml" % n), os.path.join(d, "%d" % n)
        with open(recipe, "w") as r:
            r.write("a_stage:\n  b_modifiers:\n    QuantizationModifier: {%s}\n" % args)
        subprocess.run([os.path.join(bindir, "llmc"), "run", os.path.join(tiny, "f32"), "-r", recipe, "-o", model, "-q",
                        "-d", os.path.join(tiny, "f32.jsonl")], check=True, stdout=subprocess.DEVNULL)
        m = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager",
                                                 quantization_config=CompressedTensorsConfig(dequantize=True)).eval()
        float_weights(m, load_file(os.path.join(model, "model.safetensors")))
        rounded = [nll(m, ids) for ids in samples]
        for module in m.modules():
            module.quantization_enabled = False
        print(*("%.6f" % v for v in rounded + [nll(m, ids) for ids in samples]), args, sep="\t", file=f)
        f.flush()
