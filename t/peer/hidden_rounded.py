"""Hidden states of the first layers with activations rounded, token by token beside those of transformers with
compressed-tensors, in f32. usage: hidden_rounded.py LLMC_EVAL IDS.jsonl CHECKPOINT ... (the first 64 tokens)

The library's dequantised weights are rounded to bf16, which llmc stores them in. A value that lies on a tie but for the
last bits of a sum may be rounded the other way; what follows from that is as large as the rounding itself, so that
medians and the count of equal tokens tell, not maxima."""
import json, os, subprocess, sys, tempfile
os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

LENGTH, LAYERS = 64, 3
program, data = sys.argv[1:3]
ids = torch.tensor([json.loads(open(data).readline())["input_ids"][:LENGTH]])


def states(model):
    out, first = [], lambda o: o[0] if isinstance(o, tuple) else o
    hooks = [layer.register_forward_hook(lambda m, i, o: out.append(first(o).reshape(LENGTH, -1)))
             for layer in model.model.layers]
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    for h in hooks:
        h.remove()
    return out


for checkpoint in sys.argv[3:]:
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([program, "-q", "-m", checkpoint, "-d", data, "-w", "1", "-l", str(LENGTH), "--dump", d + "/x"],
                       check=True)
        ours = load_file(d + "/x")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, num_hidden_layers=LAYERS,
                                                 quantization_config=CompressedTensorsConfig(dequantize=True)).eval()
    for m in model.modules():
        if getattr(m, "quantization_scheme", None) is not None and hasattr(m, "weight"):
            m.weight.data = m.weight.data.bfloat16().float()
    rounded = states(model)
    for m in model.modules():
        m.quantization_enabled = False
    plain = states(model)
    for i in range(LAYERS):
        error = (ours[f"hidden.{i + 1}"] - rounded[i]).norm(dim=1) / rounded[i].norm(dim=1)
        effect = (plain[i] - rounded[i]).norm(dim=1) / rounded[i].norm(dim=1)
        print("%s layer %d: to theirs median %.1e, %d of %d tokens within 1e-5; rounding itself %.1e" % (
            checkpoint, i, error.median(), (error < 1e-5).sum(), LENGTH, effect.median()))
