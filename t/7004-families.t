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

# The losses that llmc-eval prints follow from the logits that it dumps.
for f in llama gemma2 granite; do
    ok "$f, compressed: logits that are dumped have the losses" "
        llmc-eval -q -m $f.out -d eval -l 20 --each --dtype float32 | sed '\$d' | cut -f 2 >want
        llmc-eval -q -m $f.out -d eval -l 20 --dtype float32 --dump dumped
        perl -MJSON::PP -e '\$/ = undef; open F, q(dumped); \$_ = <F>; my \$n = unpack q(Q<);
            my \$h = decode_json(substr \$_, 8, \$n)->{logits}; my (\$rows, \$v) = @{\$h->{shape}};
            my @x = unpack q(f<*), substr \$_, 8 + \$n + \$h->{data_offsets}[0], 4 * \$rows * \$v;
            open I, q(eval); my @id = <I> =~ /\d+/g;
            for my \$w (0 .. \$rows / 20 - 1) {
                my \$sum = 0;
                for my \$i (\$w * 20 .. \$w * 20 + 18) {
                    my \$z = 0;
                    \$z += exp for @x[\$i * \$v .. (\$i + 1) * \$v - 1];
                    \$sum += log(\$z) - \$x[\$i * \$v + \$id[\$i + 1]];
                }
                printf qq(%.6f\n), \$sum / 19;
            }' >got
        paste want got
        [ \"\$(wc -l <got)\" -eq 6 ]
        paste want got | awk '{ d = \$1 - \$2 } d > 2e-5 || d < -2e-5 { exit 1 }'
    "
done

done_testing
