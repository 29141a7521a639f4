"""Make t/data/tok/cases.jsonl: what the tokenizers library makes of short texts with each normalizer, pre-tokenizer,
kind of added token and kind of unknown character that llmc reads. usage: make_tok_cases.py OUT_DIR

Line 1: {"texts": [...], "base": {NAME: tokenizer}}. Then a line for each case: {"name", "base", "set", "ids"}; members
of "set" replace those of the base (members of its "model" those of the base's model), ids are those of each text with
special tokens, null where the library fails."""
import argparse
import copy
import json
import os

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|"
          r"\s+(?!\S)|\s+")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
            r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEXTS = [
    "", " ", "Hello, world! It's 2024; they'RE we'll I'd", "'S 'LL '\u017f don\u2019t",
    "a  b   c\n\n d\r\n\te \n\n\n", "e\u0301 a\u0327\u0301 a\u0301\u0327 q\u0334\u0301 \u1e9b\u0323",
    "\uac00\u11a8 \u1100\u1161\u11a8 \u0958 \u2126 \u0344", "a\u1abf\u0334 \u08d3\u061a \U00011935\U00011930",
    "漢字かな交じり文。 한국어 中文，标点", "👩‍👩‍👧 👍🏽 🇩🇪", "Ⅷ ½ ²34 ٣٤٥ \U00010d45\U00011de5",
    "x\u00a0y\u2003z\u3000\u2028\u180ea\u200bb\u0085c", "\U000323af\u1c89\U0001e4d0 \U0001fae9 \U00011f02\u0897",
    "1234567 12,345.678", "../a_b-c?d=e&f#g /// *** (x|y)", "\u061d\u166d\u2e43 \u00a1 _ $ ^ `",
    "ǅx ABc Abc aBC camelCase HTTPServer", "<l> <r> <lr> x <l>y<r>  z  <lr>  w", "<r>\n\n<r> x <lr>\n\nx<r>\n\n",
    "word words sword a-word \u24d0word word\u0301 word", "Norm norm <l><r> <l><r><r>", "▁x ▁▁ a▁b ▁",
    "éa \u00c9 é\u0301é", " sp sp", "\0\x01\x7f\ufffd\ufeff\U0010ffff", "a" * 45 + "b", "the the quick fox; thethe",
    "\u20a9\u2087\u20ac Ä\u00cb", "zq\u00ff\u0100z q\u00ffz", "  two  spaces   three    four", "\n", "</s><s>x</s>",
]


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def letters(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def digits(each):
    return {"type": "Digits", "individual_digits": each}


def marks(scheme, cut):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}


def token(content, **flags):
    return {"id": 0, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True} | flags


ADDED = [token("<l>", lstrip=True), token("<r>", rstrip=True), token("<lr>", lstrip=True, rstrip=True),
         token("<l><r>"), token("word", single_word=True), token("\n\n", lstrip=True, special=False),
         token("  ", special=False)] + [token(c, normalized=True, special=False) for c in ("Norm", "é", " sp", "▁x")]
NFC = {"type": "NFC"}
MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
LLAMA2 = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, MARK]}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
               {"SpecialToken": {"id": "</s>", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                       "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}


def bases():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(vocab_size=340, show_progress=False, special_tokens=["</s>"],
                                                         initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    yield "bytes", json.loads(t.to_str())
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator([x for x in TEXTS if x.isascii()] * 3, trainers.BpeTrainer(
        vocab_size=400, show_progress=False,
        special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]))
    j = json.loads(t.to_str())
    j["added_tokens"] = j["added_tokens"][:3]
    for name in ["▁▁", "▁▁▁▁", "é", "\u0301"]:
        j["model"]["vocab"].setdefault(name, len(j["model"]["vocab"]))
    j["model"]["merges"] = [["▁", "▁"], ["▁▁", "▁▁"]] + j["model"]["merges"]
    j["pre_tokenizer"] = None
    yield "marks", j
    some = copy.deepcopy(j)  # some bytes are missing: their characters are unknown, others are spelled
    for b in range(256):
        if b not in [0xc3, 0x8b, 0xe2, 0x82, 0xa9]:
            some["model"]["vocab"].pop(f"<0x{b:02X}>")
    yield "some", some


def byte_level():
    yield "gpt2", letters(False, True)
    yield "prefix", letters(True, True)
    yield "whole", letters()
    yield "llama3", sequence(split(LLAMA3), letters())
    yield "cl100k", sequence(split(CL100K, "Removed", True), letters())
    yield "o200k", sequence(split(O200K), letters())
    yield "deepseek", sequence(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK), letters())
    yield "falcon", sequence({"type": "Punctuation", "behavior": "Contiguous"}, letters(False, True), digits(False),
                             split("[0-9][0-9][0-9]"))
    yield "bloom", sequence(split(" ?[^(\\s|[.,!?…。，、।۔،])]+"), letters())
    yield "digits", sequence(digits(True), letters())
    yield "numbers", sequence(digits(False), letters())
    yield "whitespace", sequence({"type": "Whitespace"}, letters())
    yield "spaces", sequence({"type": "WhitespaceSplit"}, letters())
    yield "punctuation", sequence({"type": "Punctuation", "behavior": "Removed"}, letters())
    yield "words", sequence(split(r"\w+|[^\w\s]"), letters())
    yield "twice", sequence(letters(True, True), letters(False, True))
    for behavior in ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in [False, True]:
            yield behavior + "-not" * invert, sequence(split(r"\s|\d+|x*", behavior, invert), letters())
        yield behavior + "-string", sequence(split(" a", behavior, False, "String"), letters())


def cases():
    for name, pre in byte_level():
        yield "bytes", name, {"pre_tokenizer": pre}
    yield "bytes", "added", {"added_tokens": ADDED}
    yield "bytes", "added-nfc", {"added_tokens": ADDED, "normalizer": NFC}
    yield "bytes", "added-prefix", {"added_tokens": ADDED, "pre_tokenizer": letters(True, True)}
    yield "bytes", "nfc", {"normalizer": NFC}
    yield "bytes", "letters", {"normalizer": {"type": "ByteLevel"}, "pre_tokenizer": None}
    yield "bytes", "replace", {"normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}|\n"}, "content": " "}}
    yield "bytes", "whole-words", {"pre_tokenizer": letters(), "model": {"ignore_merges": True}}
    yield "marks", "llama2", {"normalizer": LLAMA2, "post_processor": TEMPLATE}
    yield "marks", "llama2-added", {"normalizer": LLAMA2, "added_tokens": ADDED}
    yield "marks", "gemma", {"normalizer": MARK, "pre_tokenizer": split(" ", "MergedWithPrevious", False, "String")}
    for scheme in ["always", "first", "never"]:
        for cut in [True, False]:
            yield "marks", scheme + "-whole" * (not cut), {"pre_tokenizer": marks(scheme, cut), "added_tokens": ADDED}
    for name, m in {"unknown": {"byte_fallback": False}, "unknown-each": {"byte_fallback": False, "fuse_unk": False},
                    "dropped": {"byte_fallback": False, "unk_token": None},
                    "not-there": {"byte_fallback": False, "unk_token": "<none>"}, "ignore": {"ignore_merges": True}}.items():
        yield "marks", name, {"normalizer": LLAMA2, "model": m}
    yield "some", "some-bytes", {}
    yield "some", "some-bytes-each", {"model": {"fuse_unk": False}}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    base = dict(bases())
    lines = [{"texts": TEXTS, "base": base}]
    for kind, name, change in cases():
        j = copy.deepcopy(base[kind])
        for key, value in change.items():
            j[key] = j[key] | value if key == "model" else value
        t = Tokenizer.from_str(json.dumps(j))
        ids = []
        for text in TEXTS:
            try:
                ids.append(t.encode(text).ids)
            except BaseException:  # a panic is not an Exception
                ids.append(None)
        lines.append({"name": name, "base": kind, "set": change, "ids": ids})
    with open(os.path.join(ap.parse_args().out, "cases.jsonl"), "w", encoding="utf-8") as f:
        f.writelines(json.dumps(x, ensure_ascii=False, separators=(",", ":")) + "\n" for x in lines)


if __name__ == "__main__":
    main()
