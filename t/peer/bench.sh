#!/bin/sh
# bench.sh BUILD MODEL IDS.jsonl [EVAL.jsonl] - LLM Compressor and llmc turn by turn on the same tokens: seconds, ratio of
# medians, the most memory of all processes together, perplexity of both results.
# ROUNDS (3), THREADS (all), GROUP (64), SEQUENTIAL (input), OBSERVER (minmax, the peer's). Each line of IDS is
# {"input_ids": [...]}. VENV: an environment that is there already.
set -eu
peer=${0%/*}
if [ $# -lt 3 ] || [ -z "$2" ] || [ -z "$3" ]; then
    echo "usage: make peer-bench MODEL=dir DATA=ids.jsonl [EVAL=text]" >&2
    exit 64
fi
. "$peer/env.sh"
build=$1 model=$2 ids=$3 eval=${4-}
threads=${THREADS:-$(nproc)} group=${GROUP:-64} rounds=${ROUNDS:-3}
watch=$peer/../bench/watch
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM

measured()
{
    name=$1
    shift
    "$watch" "$@" >"$tmp/$name.log" 2>&1 || { tail -n 20 "$tmp/$name.log" >&2; exit 1; }
    line=$(grep '^wall ' "$tmp/$name.log" | tail -n 1)
    echo "$name: $line"
    echo "$line" | sed 's/wall \([0-9.]*\) s.*memory \([0-9.]*\) MB/\1 \2/' >>"$tmp/$name.numbers"
}

i=0
while [ "$i" -lt "$rounds" ]; do
    i=$((i + 1))
    rm -rf "$tmp/peer" "$tmp/ours" "$tmp/work"
    measured peer "$venv/bin/python" "$peer/hessian.py" --model "$model" --data "$ids" --out "$tmp/peer" \
        --group "$group" --threads "$threads"
    measured llmc "$build/bin/llmc" run "$model" -s W4A16 -g "$group" -d "$ids" -n "$(wc -l <"$ids")" -o "$tmp/ours" \
        -C "$tmp/work" --sequential "${SEQUENTIAL:-input}" -j "$threads" \
        --observer "${OBSERVER:-minmax}" -q
done
perl -e '
    sub median { my @v = sort { $a <=> $b } @_; return @v % 2 ? $v[@v / 2] : ($v[@v / 2 - 1] + $v[@v / 2]) / 2 }
    my (%s, %m);
    for my $n ("peer", "llmc") {
        open my $in, "<", "$ARGV[0]/$n.numbers" or die "$n: $!\n";
        while (<$in>) { my ($s, $m) = split; push @{$s{$n}}, $s; push @{$m{$n}}, $m }
    }
    printf "medians: LLM Compressor %.2f s, llmc %.2f s: %.2f times as fast\n", median(@{$s{peer}}), median(@{$s{llmc}}),
        median(@{$s{peer}}) / median(@{$s{llmc}});
    printf "memory: %.0f MB, %.0f MB: %.2f\n", median(@{$m{peer}}), median(@{$m{llmc}}),
        median(@{$m{llmc}}) / median(@{$m{peer}});
' "$tmp"
if [ -n "$eval" ]; then
    "$venv/bin/python" "$peer/ppl.py" "$tmp/peer/model" "$eval" | sed 's/^/LLM Compressor: /'
    "$venv/bin/python" "$peer/ppl.py" "$tmp/ours" "$eval" | sed 's/^/llmc: /'
fi
