#!/bin/sh
# large.sh BUILD - a checkpoint of random weights in the shape of Llama-3-8B, from source to W4A16 within LIMIT bytes of
# memory: what was predicted, what was measured, how long it took
#
# LAYERS (32), LIMIT (4 GiB), SAMPLES (4), LENGTH (128), THREADS (2), DIR (a temporary one, removed at the end)
set -eu
build=$1
layers=${LAYERS:-32} limit=${LIMIT:-4294967296} samples=${SAMPLES:-4} length=${LENGTH:-128} threads=${THREADS:-2}
dir=${DIR:-$(mktemp -d "${TMPDIR:-/tmp}/llmc-large.XXXXXX")}
mkdir -p "$dir"
[ -n "${DIR:-}" ] || trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

# A layer is 436 MB, embedding and head are 2.1 GB; work directory and result are a quarter of the layers each, and the
# result has embedding and head as well; a Hessian of 0.8 GB passes by.
want=$((layers * 436 * 3 / 2 + 2 * 2100 + 2000))
have=$(df -Pm "$dir" | awk 'NR == 2 { print $4 }')
[ "$have" -gt "$want" ] || { echo "large.sh: $dir: $have MB of disk, want $want MB" >&2; exit 71; }

[ -e "$dir/ids.jsonl" ] ||
    "$build/t/random-model" -o "$dir/m" --layers "$layers" -d "$dir/ids.jsonl" -n "$samples" -l "$length"
start=$(date +%s)
status=0
"$build/t/peak" -m "$limit" -o "$dir/peak" "$build/bin/llmc" run "$dir/m" -s W4A16 -d "$dir/ids.jsonl" -n "$samples" \
    -l "$length" -j "$threads" --memory "$limit" -q -C "$dir/w" -o "$dir/out" >"$dir/log" || status=$?
end=$(date +%s)
predicted=$("$build/bin/llmc-shard" -C "$dir/w" --shares 1 -j "$threads" --memory "$limit" |
    awk -F '\t' '$1 == "pipeline" { print $2; print $3 >"/dev/stderr" }')
done=$(find "$dir/w/weights" -type f ! -name '*.tmp.*' | wc -l)
measured=$(sed 's/^peak=\([0-9]*\).*/\1/' "$dir/peak")
echo "layers $layers, $samples x $length tokens, $threads threads; $done modules in $((end - start)) s, status $status"
echo "model $(du -sm "$dir/m" | cut -f 1) MB, result $(du -sm "$dir/out" 2>/dev/null | cut -f 1) MB"
sed 's/ at the peak/\n at the peak/' "$dir/peak"
awk -v p="$predicted" -v m="$measured" 'BEGIN {
    printf "memory: predicted %.3f GB, measured %.3f GB (%+.1f %%)\n", p * 1e-9, m * 1e-9, 100 * (m / p - 1) }'
exit "$status"
