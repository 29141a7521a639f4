"""Make the tokenizer fixtures of t/data/tok: small byte-level BPE tokenizers in the styles of GPT-2, Llama 3, Qwen and
SmolLM2, hard cases, and the ids that the tokenizers library gives. usage: make_tok.py DEMO_DIR OUT_DIR"""
import argparse, json, os, random
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
B = lambda regex=True, prefix=False: pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)
S = lambda p: pre_tokenizers.Split(Regex(p), behavior="isolated", invert=False)
STYLES = {
    "gpt2": (None, B()),
    "gpt2-prefix": (None, B(prefix=True)),
    "llama3": (None, pre_tokenizers.Sequence([S(LLAMA3), B(False)])),
    "qwen": (normalizers.NFC(), pre_tokenizers.Sequence([S(QWEN), B(False)])),
    "smollm2": (None, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), B()])),
}
HARD = [
    "Hello, world! It's 2024; they're we'll I'd YOU'RE IT'S don't can't", "\u0130\u017f'\u017f K\u212a 'S 'LL", "naïve café résumé",
    "e\u0301 a\u0308 n\u0303 \u1e9b\u0323 \uac00 \u1100\u1161\u11a8 \u0958 \u2126", "漢字かな交じり文 한국어 中文，标点。", "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 😀😃",
    "العربية עברית ไทย हिन्दी தமிழ்", "1234567890 12 345.678,9 ½ ² Ⅷ ٣٤٥ १२३", "a\u00a0b\u2003c\u3000d\u2028e\u2029f\u180eg\u200bh\u202fi\u0085j",
    "tabs\t\t\ttabs   spaces      many" + " " * 70 + "end", "  leading and trailing  ", "\u0001\u0002\u001b[0m\u007f\u0080\u009f",
    "x" * 300, "ab" * 200, "\ufffd\ufffe \U0001d49c\U0001f9e0\U00020000", "<|endoftext|> <|bos|>in<|x|>  <|x|>word <w>word< w > <w>",
    "keep <keep> <keep>x x<keep>", "", " ", "\u0300\u0301", "don\u2019t \u201cquote\u201d — dash … ellipsis", "C++ #include <stdio.h> int main(void) { return 0; }",
    "https://example.org/a?b=c&d=%20 user@example.org", "\r", "mixed АБВ αβγ ǅ ﬁ ß İi", "Ｆｕｌｌｗｉｄｔｈ ①②③ ㎏",
]
INVALID = b"ok \xff\xfe bad \xc3\x28 cut \xe2\x82 end \xf0\x9f\x98 \xed\xa0\x80 \xf4\x90\x80\x80 \xc0\xaf tail \xe2"

ap = argparse.ArgumentParser()
ap.add_argument("demo"); ap.add_argument("out")
a = ap.parse_args()
os.makedirs(a.out, exist_ok=True)
rnd = random.Random(1)
pool = [c for h in HARD for c in h] + list(" \n\t'sdtm019") * 8
hard = "\n".join(HARD + ["".join(rnd.choice(pool) for _ in range(rnd.randint(1, 60))).replace("\n", " ") for _ in range(200)]) + "\n\n\n  \n end"
open(os.path.join(a.out, "hard.txt"), "wb").write(hard.encode())
open(os.path.join(a.out, "hard-invalid.txt"), "wb").write(INVALID)
texts = [json.loads(l)["text"] for l in open(os.path.join(a.demo, "eval.jsonl"), encoding="utf-8")][:60] + [hard]
for name, (norm, pre) in STYLES.items():
    t = Tokenizer(models.BPE(ignore_merges=name == "llama3"))
    if norm: t.normalizer = norm
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1200, special_tokens=["<|endoftext|>", "<|bos|>"],
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_tokens([AddedToken("<keep>", normalized=True), AddedToken("<w>", single_word=True, normalized=False)])
    t.add_special_tokens([AddedToken("<|x|>", lstrip=True, rstrip=True, normalized=False)])
    if name == "llama3":
        t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
            single="<|bos|> $A", special_tokens=[("<|bos|>", t.token_to_id("<|bos|>"))])])
    t.save(os.path.join(a.out, name + ".json"), pretty=False)
    ids = lambda s, special: " ".join(map(str, t.encode(s, add_special_tokens=special).ids))
    lines = [ids(hard, True)] + [ids(l, False) for l in hard.split("\n")] + [ids(INVALID.decode(errors="replace"), False)]
    open(os.path.join(a.out, name + ".ids"), "w").write("\n".join(lines) + "\n")
