#!/bin/sh
# run.sh BUILD [JSON] - speed of every kernel with one thread and with THREADS (all processors), then a whole run by
# phase. MODEL, DATA, SAMPLES: of the run (the demo's). JSON: a file that gets a line for each result.
set -eu
dir=${0%/*}
build=$1
json=${2-}
threads=${THREADS:-$(nproc)}
demo=$dir/../../share/demo
model=${MODEL:-$demo}
data=${DATA:-$demo/calib.jsonl}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
[ -z "$json" ] || : >"$json"

for j in 1 $([ "$threads" -eq 1 ] || echo "$threads"); do
	echo "--- $j thread(s)"
	for b in kernels gptq; do
		if [ -n "$json" ]; then
			"$build/t/bench-$b" -j "$j" --json >>"$json"
		else
			"$build/t/bench-$b" -j "$j"
		fi
	done
done
echo "--- a run of $model with $threads thread(s)"
"$dir/watch" "$build/bin/llmc" run "$model" -s W4A16 -g 64 -d "$data" -n "${SAMPLES:-64}" -l 512 -o "$tmp/out" \
	-C "$tmp/work" --keep -j "$threads" -q >"$tmp/log" 2>&1 || { cat "$tmp/log" >&2; exit 1; }
"$dir/phases" "$tmp/work"
tail -n 1 "$tmp/log"
[ -z "$json" ] || "$dir/phases" "$tmp/work" --json >>"$json"
