#!/bin/sh
# quality.sh BUILD MODEL IDS.jsonl EVAL.jsonl [SCHEME ...] - perplexity of LLM Compressor's GPTQ with each preset, as
# transformers computes it, on given tokens: the column beside those of `make quality`. A scheme and a number a line.
# OUT: results that are there already are kept in it. The environment is made in BUILD/peer-venv when it is missing.
set -eu
peer=${0%/*}
[ $# -ge 4 ] || { echo "usage: quality.sh BUILD MODEL IDS.jsonl EVAL.jsonl [SCHEME ...]" >&2; exit 64; }
. "$peer/env.sh"
model=$2 ids=$3 eval=$4
shift 4
[ $# -gt 0 ] || set -- W4A16 W8A8 FP8_DYNAMIC NVFP4A16 NVFP4 MXFP4A16 MXFP4
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
: "${OUT:=$tmp}"
mkdir -p "$OUT"
for scheme; do
    if [ ! -s "$OUT/$scheme.ppl" ]; then
        "$venv/bin/python" "$peer/hessian.py" --model "$model" --data "$ids" --scheme "$scheme" --out "$tmp/$scheme" \
            >"$OUT/$scheme.log" 2>&1 || { cat "$OUT/$scheme.log" >&2; exit 1; }
        "$venv/bin/python" "$peer/ppl.py" "$tmp/$scheme/model" "$eval" >"$tmp/ppl" 2>>"$OUT/$scheme.log"
        sed -n 's/.*"ppl": \([0-9.]*\).*/\1/p' "$tmp/ppl" >"$OUT/$scheme.ppl"
        rm -rf "${tmp:?}/$scheme"
    fi
    printf '%s\t%s\n' "$scheme" "$(cat "$OUT/$scheme.ppl")"
done
