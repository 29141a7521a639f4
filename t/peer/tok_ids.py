#!/usr/bin/env python3
"""Token ids of every document of a JSON-lines file, one line each, as the tokenizers library gives them; a document
with input_ids keeps those. usage: tok_ids.py MODEL_DIR FILE.jsonl [--no-special]"""
import argparse
import json
import os
from tokenizers import Tokenizer

ap = argparse.ArgumentParser(description="token ids of every document, one line each")
ap.add_argument("model", help="directory with tokenizer.json")
ap.add_argument("data", help="JSON lines with a text field")
ap.add_argument("--no-special", action="store_true", help="without what the post-processor adds")
a = ap.parse_args()
tok = Tokenizer.from_file(os.path.join(a.model, "tokenizer.json"))
tok.no_truncation()
tok.no_padding()
with open(a.data, encoding="utf-8") as f:
    for line in f:
        doc = json.loads(line)
        ids = doc.get("input_ids")
        print(*(tok.encode(doc["text"], add_special_tokens=not a.no_special).ids if ids is None else ids))
