#!/bin/sh
# ranks.sh BUILD MODEL DATA [RANKS ...] - whole runs, planning and packing included, of so many ranks (default: 1 2 4) of a
# thread each, on as many processors, or all there are: seconds, and how much faster than the first.
#
# A rank is confined to its share, since its stages are programs of their own that overlap: one rank of a thread on two
# processors would use 1.4 of them. SAMPLES (512), LENGTH (512), SCHEME (W4A16), GROUP (64). Bytes are compared.
set -eu
build=$1 model=$2 data=$3
shift 3
[ $# -gt 0 ] || set -- 1 2 4
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM
all=$(nproc)

printf 'ranks\tprocessors\tseconds\tuser\tsystem\ttimes\n'
for ranks; do
    cpus=$((ranks < all ? ranks : all))
    rm -rf "$tmp/out"
    taskset -c "0-$((cpus - 1))" "${0%/*}/watch" "$build/bin/llmc" run "$model" -s "${SCHEME:-W4A16}" -g "${GROUP:-64}" \
        -d "$data" -n "${SAMPLES:-512}" -l "${LENGTH:-512}" -j 1 --ranks "$ranks" -o "$tmp/out" -q >"$tmp/log" 2>&1 ||
        { cat "$tmp/log" >&2; exit 1; }
    # wall 1.00 s, user 1.00 s, system 0.10 s, memory 10.0 MB
    grep '^wall ' "$tmp/log" | tail -n 1 | tr -d , | awk -v r="$ranks" -v c="$cpus" -v first="${first:-0}" '{
        printf "%d\t%d\t%.1f\t%.1f\t%.1f\t%.2f\n", r, c, $2, $5, $8, (first > 0 ? first : $2) / $2 }'
    first=${first:-$(grep '^wall ' "$tmp/log" | tail -n 1 | awk '{ print $2 }')}
    sum=$(sha256sum <"$tmp/out/model.safetensors")
    [ "${same:=$sum}" = "$sum" ] || { echo "ranks.sh: $ranks ranks make other bytes" >&2; exit 1; }
done
