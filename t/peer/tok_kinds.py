#!/usr/bin/env python3
"""Token ids of 5 MB of mixed text for each kind of tokenizer, llmc's beside those of the tokenizers library.
usage: tok_kinds.py DEMO_DIR BENCH_TOK OUT_DIR [KIND ...]

Trains a tokenizer of each kind on part of the text, OUT_DIR/KIND/tokenizer.json, with the components, flags of tokens and
post-processor of the family's own file; runs BENCH_TOK (build/t/bench-tok) on OUT_DIR/text; compares all ids. The text is
the demo's, this Python's own library (code, tables, comments in other languages), and words, numbers, spaces and symbols
drawn from Unicode's blocks with a fixed seed."""
import argparse
import array
import glob
import json
import os
import random
import subprocess
import sys

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from make_tok_cases import CL100K, DEEPSEEK, LLAMA3, O200K  # noqa: E402

BYTES, VOCAB = 5_000_000, 8000
BLOCKS = [(0x20, 0x7f), (0x20, 0x7f), (0xa0, 0x250), (0x300, 0x370), (0x370, 0x400), (0x400, 0x530), (0x590, 0x700),
          (0x900, 0xa00), (0xe00, 0xe80), (0x1100, 0x1200), (0x1e00, 0x2000), (0x2000, 0x2070), (0x20a0, 0x2200),
          (0x2460, 0x2600), (0x3000, 0x3100), (0x4e00, 0x5200), (0xac00, 0xb000), (0xfb00, 0xfb50), (0xff00, 0xfff0),
          (0x1d400, 0x1d500), (0x1f300, 0x1f700), (0x20000, 0x20100)]
MARKS = ["<s>", "</s>", "<|x|>", "<|end|>", "<w>", " <w> ", "\n\n", "▁▁", "\t", "    ", "12345678", "3.14", "'s", "don't"]
NEMO = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+")


def mixed(demo):
    r = random.Random(5)
    parts = [json.loads(line)["text"] for line in open(os.path.join(demo, "calib.jsonl"), encoding="utf-8")]
    for path in sorted(glob.glob(os.path.join(os.path.dirname(os.__file__), "**", "*.py"), recursive=True))[:400]:
        if "site-packages" not in path:
            parts.append(open(path, encoding="utf-8", errors="replace").read()[:12000])
    for _ in range(6000):
        low, high = r.choice(BLOCKS)
        words = ["".join(chr(r.randrange(low, high)) for _ in range(r.randrange(1, 9))) for _ in range(r.randrange(1, 14))]
        words += [r.choice(MARKS) for _ in range(r.randrange(3))]
        r.shuffle(words)
        parts.append("".join(w + r.choice([" ", " ", "  ", "\n", "", "\u00a0", ", ", "\r\n", " \n "]) for w in words))
    r.shuffle(parts)
    text, size = [], 0
    for p in parts * 20:
        text.append(p)
        size += len(p.encode()) + 1
        if size > BYTES:
            break
    return "\n".join(text)


def byte_level(pre, norm=None, **model):
    t = Tokenizer(models.BPE(**model))
    t.normalizer = norm
    t.pre_tokenizer = pre
    return t, dict(initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def marked(norm=None, pre=None):
    """SentencePiece's way: trained on words, then read without a cut."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = norm
    t.pre_tokenizer = pre or pre_tokenizers.Metaspace()
    return t, dict(special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)])


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def letters(regex=False, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def seq(*steps):
    return pre_tokenizers.Sequence(list(steps))


REPLACE = normalizers.Replace(" ", "▁")
PREPEND = normalizers.Sequence([normalizers.Prepend("▁"), REPLACE])
DIGITS = pre_tokenizers.Digits(individual_digits=True)
KINDS = {  # name: trained, then what the file gets
    "gpt2": (byte_level(letters(True)), {}),
    "smollm2": (byte_level(seq(DIGITS, letters(True))), {}),
    "llama3": (byte_level(seq(split(LLAMA3), letters()), ignore_merges=True), {"bos": True}),
    "qwen": (byte_level(seq(split(LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")), letters()), normalizers.NFC()), {}),
    "nemo": (byte_level(seq(split(NEMO), letters()), ignore_merges=True), {"bos": True}),
    "o200k": (byte_level(seq(split(O200K), letters())), {}),
    "cl100k": (byte_level(seq(split(CL100K), letters())), {}),
    "deepseek": (byte_level(seq(split(r"\p{N}{1,3}"), split("[一-龥\u0800-\u4e00가-퟿]+"), split(DEEPSEEK), letters())), {"bos": True}),
    "falcon": (byte_level(seq(pre_tokenizers.Punctuation("contiguous"), letters(True), pre_tokenizers.Digits(False),
                              split("[0-9][0-9][0-9]"))), {}),
    "llama2": (marked(), {"norm": PREPEND, "pre": None, "bos": True}),
    "mistral3": (marked(), {"norm": None, "pre": pre_tokenizers.Metaspace(prepend_scheme="first", split=False), "bos": True}),
    "gemma": (marked(), {"norm": REPLACE, "pre": pre_tokenizers.Split(" ", "merged_with_previous"), "bos": True,
                         "tokens": [AddedToken(c, normalized=False) for c in ["\n\n", "▁▁", "▁▁▁▁", "\t"]]}),
    "phi3": (marked(), {"norm": PREPEND, "pre": None, "tokens": [AddedToken("<|end|>", rstrip=True, normalized=False, special=True),
                                                                 AddedToken("</s>", rstrip=True, normalized=False)]}),
}


def make(name, text, out):
    (t, train), change = KINDS[name]
    train = {"special_tokens": ["<s>", "</s>"]} | train
    t.train_from_iterator(text.split("\n")[:20000], trainers.BpeTrainer(vocab_size=VOCAB, show_progress=False, **train))
    j = json.loads(t.to_str())
    if "pre" in change:  # no byte or mark of its own is an added token; long marks get merges as SentencePiece has them
        j["added_tokens"] = j["added_tokens"][:3]
        j["pre_tokenizer"] = None
        for k in (2, 4):
            j["model"]["vocab"].setdefault("▁" * k, len(j["model"]["vocab"]))
        j["model"]["merges"] = [["▁", "▁"], ["▁▁", "▁▁"]] + j["model"]["merges"]
        t = Tokenizer.from_str(json.dumps(j))
        t.normalizer = change["norm"] or normalizers.Sequence([])
        if change["pre"]:
            t.pre_tokenizer = change["pre"]
    t.add_tokens(change.get("tokens", []))
    t.add_tokens([AddedToken("<w>", single_word=True, normalized=False)])
    t.add_special_tokens([AddedToken("<|x|>", lstrip=True, rstrip=True, normalized=False)])
    if change.get("bos"):
        bos = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))])
        t.post_processor = bos if "pre" in change else processors.Sequence([processors.ByteLevel(trim_offsets=False), bos])
    os.makedirs(os.path.join(out, name), exist_ok=True)
    t.save(os.path.join(out, name, "tokenizer.json"))
    return t


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("demo")
    ap.add_argument("bench")
    ap.add_argument("out")
    ap.add_argument("kinds", nargs="*")
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    text = mixed(a.demo)
    with open(os.path.join(a.out, "text"), "wb") as f:
        f.write(text.encode())
    worst = 0
    for name in a.kinds or KINDS:
        want = make(name, text, a.out).encode(text).ids
        ids = os.path.join(a.out, "ids")
        told = subprocess.run([a.bench, os.path.join(a.out, name), os.path.join(a.out, "text"), ids], check=True,
                              capture_output=True, text=True).stdout
        got = array.array("i")
        with open(ids, "rb") as f:
            got.frombytes(f.read())
        got = got.tolist()
        at = next((i for i, (x, y) in enumerate(zip(got, want)) if x != y), min(len(got), len(want)))
        same = got == want
        worst |= not same
        print(name, len(want), "ids", "are the same" if same else f"differ from {at} on: {got[at:at + 8]} want {want[at:at + 8]}",
              told.split("\t")[3].split(" of ")[0], flush=True)
    return worst


sys.exit(main())
