#!/usr/bin/env python3
"""Every recipe of LLM Compressor's own examples and tests: our module-to-scheme mapping beside the library's.

REPO is a checkout of vllm-project/llm-compressor. Recipes are taken from its YAML files, from YAML in strings of its
Python files, and from modifiers that its Python files make: their expressions are evaluated with nothing but the
library's own names in scope, so those that need anything else (a fixture, a loop) are not seen. Each is applied, with
the library's apply_quantization_config, to models on the meta device that have the names of four families, and read by
the program MAP (build/t/recipe-map) for the same names. Compared are every field of QuantizationArgs of weights and
inputs, the format, and which modules have none.

Prints a line for each distinct recipe: equal (and of each family how many modules have a scheme), refused (and why),
theirs (the library refuses it, we do not), different. Exits 1 if one differs. --write makes t/data/library/recipes.json
of those that are equal: the arguments that were given, and the library's mapping.
usage: recipes_map.py MAP REPO [--dump DIR] [--write FILE] [--only TEXT]"""
import argparse
import ast
import copy
import json
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LLM_COMPRESSOR_LOG_DISABLED", "true")
import torch
import yaml
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import quant_scheme
from llmcompressor.modifiers import Modifier, ModifierFactory
from llmcompressor.modifiers.quantization.quantization.mixin import QuantizationMixin
from llmcompressor.recipe import Recipe
from loguru import logger

logger.remove()
FIELDS = ("num_bits type symmetric group_size strategy block_structure dynamic actorder scale_dtype zp_dtype observer "
          "observer_kwargs").split()


class Router(torch.nn.Linear):
    """A router that is a subclass of Linear."""


def dense(layer):
    return [f"{layer}.self_attn.{p}_proj" for p in "qkvo"] + [f"{layer}.mlp.{p}_proj" for p in ("gate", "up", "down")]


def families():
    """name -> list of (module, class)"""
    linear = lambda names: [(n, torch.nn.Linear) for n in names]
    ends = lambda p: [(p + "embed_tokens", torch.nn.Embedding)]
    head = [("lm_head", torch.nn.Linear)]
    llama = ends("model.")
    for i in (0, 1, 2, 10):
        llama += linear(dense(f"model.layers.{i}"))
    moe = ends("model.")
    for i in (0, 1):
        m = f"model.layers.{i}"
        moe += linear(n for n in dense(m) if ".mlp." not in n or i == 0)
        moe += linear(f"{m}.linear_attn.{p}" for p in ("in_proj_qkvz", "in_proj_ba", "out_proj"))
        moe += linear(f"{m}.mlp.experts.{e}.{p}_proj" for e in (0, 1) for p in ("gate", "up", "down"))
        moe += linear(f"{m}.mlp.shared_expert.{p}_proj" for p in ("gate", "up", "down"))
        moe += [(f"{m}.mlp.gate", Router), (f"{m}.mlp.shared_expert_gate", torch.nn.Linear)]
        moe += linear(f"{m}.block_sparse_moe.experts.{e}.{p}" for e in (0, 1) for p in ("w1", "w2", "w3"))
        moe += linear([f"{m}.block_sparse_moe.gate"])
    mla = ends("model.")
    for i in (0, 1, 3):
        m = f"model.layers.{i}"
        mla += linear(f"{m}.self_attn.{p}" for p in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"))
        mla += linear([f"{m}.self_attn.indexer.wq_b", f"{m}.self_attn.indexer.weights_proj", f"{m}.mlp.gate"])
        mla += linear(f"{m}.mlp.{s}{p}_proj" for s in ("", "experts.0.", "shared_experts.") for p in ("gate", "up", "down"))
        mla += linear(f"{m}.attn.{p}_proj" for p in ("q_a", "q_b", "kv", "o_a", "o_b"))
        mla += linear([f"{m}.attn.compressor.indexer.q_b_proj", f"{m}.ffn.experts.0.w1", f"{m}.mlp.experts.1.down_proj"])
        mla += linear([f"{m}.feed_forward.router", f"{m}.feed_forward.shared_expert.down_proj"])
    vlm = ends("model.language_model.") + linear(dense("model.language_model.layers.0"))
    for t in ("model.visual.blocks.0", "model.vision_tower.encoder.layers.0", "vision_model.layers.0", "audio_tower.layers.0",
              "model.embed_audio", "model.embed_vision", "mtp.layers.0"):
        vlm += linear([f"{t}.attn.qkv", f"{t}.attn.proj", f"{t}.mlp.fc1", f"{t}.mlp.linear_fc2"])
    vlm += linear(["model.multi_modal_projector.linear_1", "multi_modal_projector.linear_2", "model.visual.merger.mlp.0",
                   "model.connector.modality_projection.proj", "model.mlp1.1", "model.language_model.lm_head"])
    return {"dense": llama + head, "moe": moe + head, "mla": mla + head, "vision": vlm + head}


def model_of(modules):
    root = torch.nn.Module()
    for name, cls in modules:
        parent, parts = root, name.split(".")
        for part in parts[:-1]:
            if part not in parent._modules:
                parent.add_module(part, torch.nn.Module())
            parent = parent._modules[part]
        parent.add_module(parts[-1], cls(256, 256, device="meta", dtype=torch.bfloat16)
                          if cls is torch.nn.Embedding else cls(256, 256, False, device="meta", dtype=torch.bfloat16))
    return root


# --- collecting ---

def is_modifier_call(node):
    f = node.func if isinstance(node, ast.Call) else None
    name = f.id if isinstance(f, ast.Name) else f.attr if isinstance(f, ast.Attribute) else ""
    return name.endswith("Modifier")


def outermost(node, found):
    """Lists with modifiers in them, and modifiers outside lists."""
    if is_modifier_call(node) or (isinstance(node, (ast.List, ast.Tuple)) and any(map(is_modifier_call, node.elts))):
        found.append(node)
        return
    for child in ast.iter_child_nodes(node):
        outermost(child, found)


def of_python(text):
    """Recipes of a Python file: modifier objects or YAML text, and how many expressions could not be evaluated."""
    tree, names, recipes, failed = ast.parse(text), {}, [], 0
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None) or node.names[0].name
            if module.split(".")[0] in ("llmcompressor", "compressed_tensors"):
                try:
                    exec(compile(ast.Module([node], []), "import", "exec"), names)
                except Exception:
                    pass
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and not any(isinstance(n, ast.Call) and not is_modifier_call(n) and not (
                isinstance(n.func, ast.Name) and n.func.id in ("QuantizationScheme", "QuantizationArgs", "dict"))
                for n in ast.walk(node.value)):
            try:
                exec(compile(ast.Module([node], []), "assign", "exec"), names)
            except Exception:
                pass
    found = []
    outermost(tree, found)
    for node in found:
        try:
            value = eval(compile(ast.Expression(node), "recipe", "eval"), dict(names))
            value = [m for m in (value if isinstance(value, (list, tuple)) else [value])]
            if all(isinstance(m, (Modifier, list)) for m in value):
                recipes.append(value)
        except Exception:
            failed += 1
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "_modifiers:" in node.value:
            recipes.append(node.value)
    return recipes, failed


def collect(repo):
    """(place, recipe), recipe being YAML text or a list of modifiers; and the places that gave none."""
    out, none = [], []
    for top in ("examples", "tests", "experimental"):
        for base, _, files in sorted(os.walk(os.path.join(repo, top))):
            for file in sorted(files):
                path = os.path.join(base, file)
                place = os.path.relpath(path, repo)
                if not file.endswith((".py", ".yaml", ".yml")):
                    continue
                with open(path, encoding="utf-8") as f:
                    text = f.read()
                if "Modifier" not in text:
                    continue
                presets = {k: dict(v) for k, v in vars(quant_scheme).items() if k.isupper() and type(v) is dict}
                recipes, failed = of_python(text) if file.endswith(".py") else ([text] if "_modifiers" in text else [], 0)
                for k, v in presets.items():  # some examples write into them
                    vars(quant_scheme)[k].clear()
                    vars(quant_scheme)[k].update(v)
                for i, r in enumerate(recipes):
                    out.append((place + (f" #{i + 1}" if len(recipes) > 1 else ""), r))
                if not recipes or failed:
                    none.append((place, failed))
    return out, none


# --- their mapping ---

def dump(scheme):
    plain = lambda v: v.value if hasattr(v, "value") else str(v) if isinstance(v, torch.dtype) else v
    args = lambda a: None if a is None else {k: plain(getattr(a, k)) for k in FIELDS}
    return {"weights": args(scheme.weights), "input_activations": args(scheme.input_activations)}


def theirs(modifiers, modules):
    """module -> what it gets; the names of modifiers that we do not have."""
    model, other, cache = model_of(modules), [], False
    for m in modifiers:
        if not isinstance(m, QuantizationMixin):
            other.append(type(m).__name__)
            continue
        if m.has_config():
            cache |= m.resolved_config.kv_cache_scheme is not None
            m.initialize_quantization(model)
    out = {}
    for name, module in model.named_modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is not None and isinstance(module, (torch.nn.Linear, torch.nn.Embedding)) and scheme.weights is not None:
            out[name] = dump(scheme)
            out[name]["format"] = scheme.format.value if hasattr(scheme.format, "value") else scheme.format
            if out[name]["format"] is None:
                out[name]["format"] = infer_module_format(torch.nn.Linear, scheme).value
    return out, other


# --- ours ---

def ours(program, text, modules):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
        f.write(text)
        f.flush()
        name = f.name
        lines = "".join(f"{n}\t{class_of(c)}\n" for n, c in modules)
        r = subprocess.run([program, name], input=lines, capture_output=True, text=True)
    if r.returncode:
        return None, r.stderr.strip().replace(name, "r.yaml")
    out, why = {}, ""
    for line in r.stdout.splitlines():
        if line.startswith("#"):
            why = line[1:].replace(name, "r.yaml")
            continue
        module, scheme, _ = line.split("\t")
        if scheme != "null":
            s = json.loads(scheme)
            out[module] = {k: s[k] for k in ("weights", "input_activations", "format")}
    return out, why


def yaml_of(recipe):
    if isinstance(recipe, str):
        return recipe
    return Recipe.from_modifiers(copy.deepcopy(recipe)).yaml()


def differences(a, b):
    for name in sorted(set(a) | set(b)):
        x, y = a.get(name), b.get(name)
        if x is None or y is None:
            yield f"{name}: ours {'nothing' if x is None else 'a scheme'}, theirs {'nothing' if y is None else 'a scheme'}"
            continue
        if x["format"] != y["format"]:
            yield f"{name}: format {x['format']}, theirs {y['format']}"
        for part in ("weights", "input_activations"):
            p, q = x[part] or {}, y[part] or {}
            for k in FIELDS:
                if k == "zp_dtype" and q.get("symmetric"):
                    continue  # set in memory, null in what is saved
                if k == "actorder" and {p.get(k), q.get(k)} == {"static", "weight"}:
                    continue  # two names of one
                if p.get(k) != q.get(k):
                    yield f"{name}: {part}.{k} {p.get(k)!r}, theirs {q.get(k)!r}"


def class_of(cls):
    return "Router Linear" if cls is Router else cls.__name__


def short(s):
    """Fields that are null, false or empty are left out, and zp_dtype, which follows from the others."""
    return {k: {f: x for f, x in v.items() if x not in (None, False, {}) and f != "zp_dtype"} if isinstance(v, dict)
            else v for k, v in s.items() if v is not None}


def case(place, recipe, lists, families):
    """What recipes.json says of a recipe: a letter for the scheme of each module, "." for none."""
    modifiers = Recipe.create_instance(copy.deepcopy(recipe)).modifiers
    given = {}
    for i, m in enumerate(modifiers):
        args = m.model_dump(mode="json", exclude_unset=True, exclude={"group", "index"})
        if "actorder" in m.model_fields_set and not isinstance(m.actorder, (str, type(None))):
            del args["actorder"]  # the default, given by name
        given.setdefault(f"m{i}_modifiers", {})[type(m).__name__] = args
    schemes, maps = [], {}
    for family in families:
        got, _ = theirs(modifiers, lists[family])
        letters = ""
        for name, _ in lists[family]:
            s = got.get(name)
            if s is not None:
                s = short(s)
                if s not in schemes:
                    schemes.append(s)
            letters += "." if s is None else chr(ord("a") + schemes.index(s))
        maps[family] = letters
        modifiers = Recipe.create_instance(copy.deepcopy(recipe)).modifiers
    return {"from": place, "recipe": {"a_stage": given}, "schemes": schemes, "maps": maps}


def write(path, cases, lists):
    """One case a line, its schemes as places in a table of all. Of those with the same recipe, the first."""
    seen, lines, schemes = set(), [], []
    for c in cases:
        key = json.dumps(c["recipe"])
        if key not in seen:
            seen.add(key)
            schemes += [s for s in c["schemes"] if s not in schemes]
            c["schemes"] = [schemes.index(s) for s in c["schemes"]]
            lines.append(json.dumps(c))
    names = ",\n".join(json.dumps(f) + ": " + json.dumps([[n, class_of(c)] for n, c in m]) for f, m in lists.items())
    with open(path, "w", encoding="utf-8") as f:
        f.write('{"modules": {\n' + names + '},\n"schemes": [\n' + ",\n".join(map(json.dumps, schemes)) +
                '],\n"cases": [\n' + ",\n".join(lines) + "]}\n")


def judge(program, recipe, lists):
    try:
        text = yaml_of(recipe)
    except Exception as e:
        return [("theirs", " ".join(str(e).split())[:120])], ""
    verdicts = []
    for family, modules in lists.items():
        try:
            # from text where it is text; modifiers as they are, since their YAML may have tags that they do not read
            m = Recipe.create_instance(copy.deepcopy(recipe)).modifiers
            want, other = theirs(m, modules)
        except Exception as e:
            want, other = None, str(e).replace("\n", " ")[:160]
        got, why = ours(program, text, modules)
        if got is None or why:
            kind = "refused by both" if want is None else "refused"
            verdicts.append((kind, why if got is None else why))
        elif want is None:
            verdicts.append(("theirs", other))
        elif other:
            verdicts.append(("different", f"they have {other}, we accept"))
        else:
            d = list(differences(got, want))
            verdicts.append(("different", f"{family}: {d[0]}" + (f" and {len(d) - 1} more" if len(d) > 1 else "")) if d
                            else ("equal", f"{family} {len(want)}"))
    return verdicts, text


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("map")
    ap.add_argument("repo")
    ap.add_argument("--only", default="")
    ap.add_argument("--dump", help="write the distinct recipes as YAML files here")
    ap.add_argument("--write", help="t/data/library/recipes.json")
    a = ap.parse_args()
    ModifierFactory.refresh()
    lists, seen, count, cases = families(), {}, {}, []
    recipes, none = collect(a.repo)
    for place, recipe in recipes:
        if a.only not in place:
            continue
        try:
            text = yaml_of(recipe)
        except Exception as e:
            text = f"{place}: {e}"
        seen.setdefault(text, []).append((place, recipe))
    for i, (text, places) in enumerate(seen.items()):
        kinds, text2 = judge(a.map, places[0][1], lists)
        order = ["different", "equal", "theirs", "refused", "refused by both"]
        kinds.sort(key=lambda k: order.index(k[0]))
        if kinds[0][0] == "equal":
            if a.write:
                cases.append(case(places[0][0], places[0][1], lists, [d.split()[0] for k, d in kinds if k == "equal"]))
            detail = ", ".join(d for k, d in kinds if k == "equal")
            others = [f"{k}: {d}" for k, d in kinds if k != "equal"]
            detail += ("; " + "; ".join(sorted(set(others)))) if others else ""
        else:
            detail = "; ".join(sorted({d for k, d in kinds if k == kinds[0][0]}))
        count[kinds[0][0]] = count.get(kinds[0][0], 0) + 1
        print(f"{i:3} {kinds[0][0]:9} {places[0][0]}{f' (+{len(places) - 1})' if len(places) > 1 else ''}: {detail}")
        if a.dump:
            os.makedirs(a.dump, exist_ok=True)
            with open(os.path.join(a.dump, f"{i:03}.yaml"), "w", encoding="utf-8") as f:
                f.write("# " + ", ".join(p for p, _ in places) + "\n" + text2)
    for place, failed in none:
        print(f"    not seen  {place}: {failed} expressions need more than the library's names" if failed else
              f"    no recipe {place}")
    print(f"{len(recipes)} recipes, {len(seen)} distinct: " + ", ".join(f"{n} {k}" for k, n in sorted(count.items())))
    if a.write:
        write(a.write, cases, lists)
    return 1 if count.get("different") else 0


sys.exit(main())
