#!/bin/sh
# whole pipelines on every family of t/data/arch
. "${0%/*}/lib.sh"
. "$data/mk/arch.sh"

tokens 8 24 >ids
tokens 6 20 >eval

for f in "$data"/arch/*/; do
    f=${f%/}
    f=${f##*/}
    family "$f" "$f"
    ok "$f is compressed, and loses less than by plain rounding" "
        llmc run $f -s W4A16 -g 16 -d ids -n 8 -l 24 -q -o $f.out >tasks
        sed '\$d' tasks | awk -F '\t' '{ gptq += \$3; rtn += \$4 } END { print gptq, rtn; exit !(gptq > 0 && gptq < rtn) }'
        llmc-pack --check $f.out
    "
    ok "$f, compressed, is read again" "
        for m in $f $f.out; do llmc-eval -q -m \$m -d eval -l 20; done >scores
        cat scores
        awk -F '\t' '{ s[NR] = \$3 } END { d = s[2] - s[1]; exit !(NR == 2 && d != 0 && d > -1 && d < 1) }' scores
    "
done

done_testing
