#!/bin/sh
# Compress the demo model and show what it cost: share/demo.sh BUILD
set -eu
bin=$1/bin
here=$(dirname -- "$0")/demo
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

size()
{
	wc -c <"$1/model.safetensors"
}

ppl()
{
	"$bin/llmc-eval" -q -m "$1" -d "$here/eval.jsonl" -l 256 | cut -f2
}

now()
{
	date +%s.%N
}

seconds()
{
	echo "$1 $2" | awk '{ printf "%.1f", $2 - $1 }'
}

echo "Compressing a Llama of 3.5 M parameters to W4A16 (4 bits, groups of 128): plain rounding, then GPTQ."
t0=$(now)
"$bin/llmc" run "$here" -s W4A16 -a rtn -o "$tmp/rtn" -q >/dev/null
t1=$(now)
"$bin/llmc" run "$here" -s W4A16 -d "$here/calib.jsonl" -n 256 -l 256 -o "$tmp/gptq" -q >/dev/null
t2=$(now)
{
	printf 'model\tperplexity\tbytes\tseconds\n'
	printf 'original\t%s\t%s\t\n' "$(ppl "$here")" "$(size "$here")"
	printf 'plain rounding\t%s\t%s\t%s\n' "$(ppl "$tmp/rtn")" "$(size "$tmp/rtn")" "$(seconds "$t0" "$t1")"
	printf 'GPTQ\t%s\t%s\t%s\n' "$(ppl "$tmp/gptq")" "$(size "$tmp/gptq")" "$(seconds "$t1" "$t2")"
} | awk -F '\t' '{ printf "%-16s %12s %10s %8s\n", $1, $2, $3, $4 }'
