#!/bin/sh
# llmc-report: tables of a run, the plan's error, the run on other ranks
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"
. "$data/mk/ranks.sh"

ids 64 7 >ids
short model

# The rows of a table, without its names.
rows() {    # TABLE FILE
    awk -v t="# $1" '/^# / { on = $0 == t; n = 0; next } on && n++ > 0' "$2"
}

# The field of that name in the first row.
field() {   # TABLE NAME FILE
    awk -F '\t' -v t="# $1" -v name="$2" '/^# / { on = $0 == t; n = 0; next }
        on && n == 0 { for (i = 1; i <= NF; i++) if ($i == name) at = i }
        on && n++ == 1 { print $at }' "$3"
}

llmc-shard -C w -m model -d ids --block-tokens 64 -s W4A16 -g 64 --ranks 3 -q
fails 66 'no log yet' 'llmc-report -C w 2>err'
ok 'is said in one line' 'oneline err && grep -q log err'
launch files w 3 -j 1 >out
sleep 0.01
: >mark

ok 'a line for each task, as llmc-gptq has printed it' '
    llmc-report -C w --tasks >report
    rows tasks report >tasks
    [ "$(grep -c . tasks)" -eq "$(($(wc -l <w/tasks.tsv) - 1))" ] && ! grep -q left tasks
    cut -f 1,2,5,6 tasks | sort >got
    cut -f 1-4 launched | sort >want
    diff -u want got
'
ok 'and a line for the run' '
    [ "$(field run left report)" -eq 0 ] && [ "$(field run ranks report)" -eq 3 ] && [ "$(field run tokens report)" -eq 448 ]
    awk -F "\t" "{ s += \$5 } END { print s }" tasks >sum
    echo "$(cat sum) $(field run loss report)" | awk "{ exit !(\$1 > 0 && (\$1 - \$2) ^ 2 < 1e-6 * \$1 ^ 2) }"
'
ok 'by module' 'llmc-report -C w --tasks -m "*.1.mlp.*" >r && [ "$(rows tasks r | grep -cv "layers.1.mlp")" -eq 0 ] &&
    [ "$(rows tasks r | grep -c .)" -ge 3 ]'
ok 'phases of three ranks, which are within the run' '
    llmc-report -C w --phases >report
    rows phases report | awk -F "\t" -v most="$(field run seconds report)" "
        { for (i = 4; i <= NF; i++) if (\$i < 0 || \$i > most + 0.1) { print; bad = 1 }; if (\$11 == 0 || \$10 > \$11 || \$12 > \$11) bad = 1 }
        END { exit bad || NR != 3 }"
'
ok 'no more is hidden than was reduced' '
    rows phases report | awk -F "\t" "{ if (\$8 > \$7) exit 1 }"
    echo "$(field run hidden_share report)" | awk "{ exit !(\$1 >= 0 && \$1 <= 1) }"
'
ok 'steps' 'llmc-report -C w --steps >r && [ "$(rows steps r | grep -c .)" -eq 8 ]'
ok 'against the plan: all steps and their sum' '
    llmc-report -C w --against-plan >r
    rows against_plan r >lines
    [ "$(grep -c . lines)" -eq 9 ]
    awk -F "\t" "\$1 == \"all\" { exit !((\$9 - p) ^ 2 < 1e-4 && (\$8 - q) ^ 2 < 1e-4 && p > 0) } { p += \$9; q += \$8 }" lines
'

# --- replay ---

ok 'on other ranks' '
    llmc-report -C w --replay 1,2,3,64 >r
    rows replay r | awk -F "\t" "
        NR == 1 && (\$8 != 1 || \$4 != 0) { exit 1 }
        \$2 + 0.002 < \$3 + \$4 + \$5 || \$2 > \$3 + \$4 + \$5 + 0.002 || \$8 > 1.001 || \$9 + 0.001 < \$8 || \$7 < 0.999 { bad = 1 }
        NR > 1 && \$5 > last + 0.001 { bad = 1 }
        { last = \$5 }
        END { exit bad || NR != 4 }"
'
ok 'a slower link and slower messages cost' '
    a=$(llmc-report -C w --replay 4 >r && field replay reduce r)
    b=$(llmc-report -C w --replay 4 --link 0.001 >r && field replay reduce r)
    c=$(llmc-report -C w --replay 4 --latency 100000 >r && field replay reduce r)
    echo "$a $b $c"
    echo "$a $b $c" | awk "{ exit !(\$2 > 100 * \$1 && \$3 > 4 && \$2 > 1) }"
'
ok 'more tokens take longer to calibrate with, and no longer to compress' '
    llmc-report -C w --replay 1 >r1
    llmc-report -C w --replay 1 --tokens 4480 >r2
    echo "$(field replay calibrate r1) $(field replay calibrate r2)" | awk "{ d = \$2 - 10 * \$1; exit !(d * d < 0.01) }"
    [ "$(field replay compress r1)" = "$(field replay compress r2)" ]
'
ok 'the work directory is not touched' '[ "$(head -n 1 w/tasks.tsv)" ] && [ -z "$(find w -newer mark -type f)" ]'
ok 'JSON has the same' '
    llmc-report -C w --replay 2 --tasks --json >j
    perl -MJSON::PP -e "\$/ = undef; \$r = decode_json(<STDIN>);
        print join(q(,), sort keys %\$r), q( ), scalar @{\$r->{tasks}}, q( ), \$r->{replay}[0]{ranks}, qq(\n)" <j >got
    echo "replay,run,tasks $(grep -c . tasks) 2" | diff - got
'

# --- several runs ---

ok 'half a run, and a line that was cut' '
    llmc-shard -C h -m model -d ids --block-tokens 64 -s W4A16 -g 64 -q
    llmc-calib -C h -q -s 0 | llmc-hessian -C h -q | llmc-gptq -C h -q >h.out 2>err || :
    printf "{\"time\": \"2026-01" >>h/log/llmc-gptq.0.jsonl
    llmc-report -C h --tasks >r 2>err
    grep -q "1 line" err && [ "$(field run left r)" -gt 0 ]
    [ "$(rows tasks r | grep -c left)" -eq "$(field run left r)" ]
'
ok 'the last run of a task counts' '
    llmc-shard -C a -m model -d ids --block-tokens 64 -s W4A16 -g 64 -q && mkdir -p a/log
    task=$(sed -n 2p a/tasks.tsv | cut -f 1)
    event() {
        echo "{\"time\": \"2026-01-31T12:00:0$1.000Z\", \"host\": \"h\", \"rank\": 0, \"tool\": \"llmc-gptq\", \"event\": $2}"
    }
    for n in 1 4; do
        event $n "\"start\", \"threads\": 1"
        event $((n + 1)) "\"factor\", \"step\": 0, \"n\": 9, \"seconds\": 0.$n"
        event $((n + 2)) "\"task\", \"task\": \"$task\", \"step\": 0, \"loss\": $n, \"rtn_loss\": 5, \"damp\": 0, \"seconds\": 1.$n"
    done >a/log/llmc-gptq.0.jsonl
    llmc-report -C a --phases --tasks >r
    [ "$(field phases factor r) $(field phases compress r) $(field tasks loss r) $(field tasks factor r)" = "0.4 1.4 4 0.4" ]
    [ "$(field run seconds r)" = 5 ]
'
for n in 0 -1 two 1, 1,,2; do
    fails 64 "no ranks: $n" "llmc-report -C w --replay $n 2>err"
done
fails 66 'no work directory' 'llmc-report -C none 2>err'
ok 'is said in one line, too' 'oneline err'

done_testing
