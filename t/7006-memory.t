#!/bin/sh
# memory is computed before the start, kept to, and changes no byte
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"
no_leak_check

short small
ids 64 24 >ids

# What a plan of one rank needs, from the table.
column() {      # NAME
    llmc-shard -m small -s W4A16 -g 32 -d ids --block-tokens 64 --plan --ranks 1 |
        awk -F '\t' -v name="$1" '$1 == "ranks" { for (i = 1; i <= NF; i++) if ($i == name) k = i }
            $1 == 1 { print $k }'
}

run() {         # OUT OPTION ...
    r_out=$1
    shift
    llmc-shard -C "$r_out.work" -m small -s W4A16 -g 32 -d ids --block-tokens 64 -q
    llmc pipeline -C "$r_out.work" "$@" >"$r_out.tsv" 2>"$r_out.err"
    llmc-pack -C "$r_out.work" -o "$r_out" -q >/dev/null
    rm -f "$r_out/provenance.json"
}

ok 'a run with all the memory there is' 'run all -q && [ ! -s all.err ]'
ok 'the plan says what a rank needs, and the least' '
    column memory >most && column least >least
    [ "$(cat least)" -gt 1000000 ] && [ "$(cat most)" -gt "$(cat least)" ]
'
ok 'shares of the stages, and of the pipeline' '
    llmc-shard -C all.work --shares 1 >shares
    awk -F "\t" "{ want = \"llmc-calib llmc-hessian llmc-gptq pipeline\"; split(want, w, \" \")
        if (NF != 3 || \$1 != w[NR] || \$2 < 1000000 || \$3 !~ /MB/) exit 1 } END { exit NR != 4 }" shares
    awk -F "\t" -v most="$(cat most)" "\$1 == \"pipeline\" { exit \$2 != most }" shares
'
ok 'two ranks have half of it each' '
    least=$(cat least)
    llmc-shard -C all.work --shares 2 -j 1 --memory 1G >two && llmc-shard -C all.work --shares 1 -j 1 --memory 1G | cmp - two
    ! llmc-shard -C all.work --shares 2 --memory "$least" 2>err && oneline err && grep -q "a rank.s three stages" err
'
ok 'as little as the plan says will do' 'run little --memory "$(cat least)"'
ok 'with states in a file' '
    grep -q "llmc-calib: needs" little.err && ! grep "llmc-calib: needs" little.err | grep -q "hidden states"
    grep -h "\"event\": *\"memory\"" little.work/log/llmc-calib.0.jsonl | grep -qv "hidden states"
    [ -d little.work/state ] && [ -z "$(find little.work/state -type f)" ]
'
ok 'each stage says what it needs in a line' '
    [ "$(grep -c "^llmc-[a-z]*: needs [0-9.]* MB: [a-z]" little.err)" -eq 3 ]
'
ok 'and the same bytes' 'diff -r all little'
ok 'layer by layer, too' '
    for m in all least; do
        rm -rf w && llmc-shard -C w -m small -s W4A16 -g 32 -d ids --block-tokens 64 --sequential layer -q
        set --
        if [ $m = least ]; then
            llmc-shard -m small -s W4A16 -g 32 -d ids --block-tokens 64 --sequential layer --plan --ranks 1 >layer.tsv
            set -- --memory "$(awk -F "\t" "\$1 == 1 { print \$9 }" layer.tsv)"
        fi
        llmc pipeline -C w "$@" 2>$m.layer >tsv
        (cd w/weights && sha256sum *) >sums.$m
    done
    grep "calib: needs" least.layer && ! grep "calib: needs.*hidden" least.layer
    cmp sums.all sums.least
'
ok 'it goes on from saved states, which lie in a file again' '
    llmc-shard -C on -m small -s W4A16 -g 32 -d ids --block-tokens 64 -q
    share=$(llmc-shard -C on --shares 1 --memory "$(cat least)" | awk -F "\t" "\$1 == \"llmc-calib\" { print \$2 }")
    llmc-calib -C on -q --memory "$share" --state-seconds 0 --timeout 1 2>err | llmc-hessian -C on -q |
        llmc-gptq -C on -q -m "*.0.*" >tsv || :
    [ -n "$(find on/state -type f)" ] && [ -n "$(find on/weights -type l)" ] && [ -n "$(find on/weights -type f)" ]
    llmc-calib -C on -q --memory "$share" | llmc-hessian -C on -q | llmc-gptq -C on -q >tsv
    (cd all.work/weights && sha256sum *) >want && (cd on/weights && sha256sum *) | cmp want -
'

ok 'the next layer is read ahead' '
    llmc-shard -C ahead -m small -s W4A16 -g 32 -d ids --block-tokens 64 -q
    llmc-calib -C ahead -q | llmc-hessian -C ahead -q | llmc-gptq -C ahead -q >tsv
    [ "$(grep -h "\"event\": *\"ahead\"" ahead/log/llmc-calib.0.jsonl | wc -l)" -eq 1 ]
    (cd ahead/weights && sha256sum *) | cmp want -
'
if command -v strace >/dev/null; then
    ok 'and pages go when they were used' '
        rm -rf ahead && llmc-shard -C ahead -m small -s W4A16 -g 32 -d ids --block-tokens 64 -q
        strace -f -e trace=madvise -o calib.trace llmc-calib -C ahead -q | llmc-hessian -C ahead -q |
            strace -f -e trace=madvise -o gptq.trace llmc-gptq -C ahead -q >tsv
        [ "$(grep -c MADV_WILLNEED calib.trace)" -eq 7 ]
        [ "$(grep -c MADV_DONTNEED gptq.trace)" -ge 14 ]
    '
else
    skip 'and pages go when they were used' 'no strace'
fi

# --- with the second stream of --correct ---

ids 256 96 >many
case $build in
*/san) measured=no ;; # red zones are not in the plan
*) measured=yes ;;
esac

# OUT LIMIT: a corrected run of two threads, which must not take more; "most": what is predicted of one without a limit.
watched() {
    llmc-shard -C "$1.work" -m small -s W4A16 -g 32 --correct -d many -n 96 -l 256 -q
    limit=$2
    [ "$2" != most ] || limit=$(llmc-shard -C "$1.work" -j 2 --shares 1 | awk -F '\t' '$1 == "pipeline" { print $2 }')
    set -- "$1" $([ "$2" = most ] || echo --memory "$2")
    out=$1
    shift
    "$build/t/peak" -o "$out.peak" "$build/bin/llmc" pipeline -C "$out.work" -j 2 -q "$@" >"$out.tsv" 2>"$out.err"
    llmc-pack -C "$out.work" -o "$out" -q >/dev/null
    rm -f "$out/provenance.json"
    echo "limit $limit, $(cat "$out.peak")"
    [ $measured = no ] || [ "$(sed 's/^peak=\([0-9]*\).*/\1/' "$out.peak")" -le "$limit" ]
}

ok 'pairs: a run takes no more than the plan says' 'watched pairs most'
ok 'the least that the plan says is less than half of that, and will do' '
    llmc-shard -m small -s W4A16 -g 32 --correct -d many -n 96 -l 256 -j 2 --plan --ranks 1 |
        awk -F "\t" "\$1 == 1 && 2 * \$9 < \$8 { print \$9 }" >fewest
    watched few "$(cat fewest)"
    grep "\"event\": \"memory\"" few.work/log/llmc-calib.0.jsonl >event && ! grep "hidden states" event
'
ok 'with the same bytes' 'diff -r pairs few'
ok 'the second stream is in what stages need' '
    llmc-shard -C one.work -m small -s W4A16 -g 32 -d many -n 96 -l 256 -q
    for d in one pairs; do llmc-shard -C $d.work -j 2 --shares 1 | cut -f 2; done | xargs |
        awk "{ print; exit !(NF == 8 && \$5 > 1.5 * \$1 && \$6 > 1.2 * \$2 && \$7 > 1.1 * \$3 && \$8 > 1.4 * \$4) }"
'
fails 71 'less is refused before anything is computed' '
    llmc run small -s W4A16 -g 32 --correct -d many -n 96 -l 256 -j 2 -o no2 --memory "$(($(cat fewest) * 9 / 10))" 2>err'
ok 'in a line that says why' '
    oneline err && grep -q "needs [0-9]* MB of memory, has [0-9]* MB" err && [ ! -e no2 ] && [ -z "$(find no2.work/weights -type f)" ]'

# --- refusals ---

for stage in calib hessian gptq; do
    fails 71 "llmc-$stage refuses what cannot work" "
        llmc-shard -C none -m small -s W4A16 -g 32 -d ids --block-tokens 64 -q
        : | llmc-$stage -C none -q --memory 1M 2>err | cat >/dev/null; llmc-$stage -C none -q --memory 1M </dev/null 2>err >out"
    ok 'in one line that says how much, what most, what would help' '
        oneline err && grep -q "needs [0-9.]* MB of memory, has 1 MB; the largest part are the [a-z ]*, [0-9]* MB; what would help: [a-z]" err
    '
done
fails 71 'llmc run refuses before anything is computed' 'llmc run small -s W4A16 -g 32 -d ids -o no --memory 1M 2>err'
ok 'in one line' 'oneline err && [ ! -e no ] && [ -z "$(find no.work/weights -type f)" ]'
ok 'and goes on with more' '
    llmc run small -s W4A16 -g 32 -d ids -o no --memory 1GiB -q >/dev/null 2>err && [ -d no ] && [ ! -s err ]
'
for m in lots -1 1X 1KiX; do
    fails 64 "no size: $m" "llmc-gptq -C none --memory $m 2>err"
done
ok 'is refused in one line' 'oneline err'
ok 'llmc run shows where the memory goes' '
    llmc run small -s W4A16 -g 32 -d ids -o x --memory 300M --show | grep -q "^llmc-shard -C x.work --shares 1 --memory 300M$"
    llmc run small -s W4A16 -g 32 -d ids -o x --memory 300M --ranks 2 --comm files --show |
        grep -q "^llmc pipeline .*--here 2 --memory 300M"
'

# --- llmc-eval and llmc-pack ---

least_eval() {
    llmc-eval "$@" --memory 1M 2>&1 | sed -n "s/.*needs \([0-9]*\) MB of memory, has 1 MB.*/\1/p"
}

ok 'llmc-eval keeps hidden states in a file, with the same result' '
    awk "BEGIN { printf \"{\\\"input_ids\\\": [1\"; for (i = 1; i < 32768; i++) printf \", %d\", i % 97; print \"]}\" }" >many
    set -- -m all -d many -l 256
    llmc-eval "$@" --memory 1G 2>err >want && grep -q "^llmc-eval: needs .*hidden states" err
    llmc-eval "$@" --memory "$(($(least_eval "$@") + 1))M" 2>err >got
    cat err && grep -q "^llmc-eval: needs" err && ! grep -q "hidden states" err
    cmp want got'
fails 71 'it refuses what cannot work' 'llmc-eval -m all -d many -l 256 --memory 1M 2>err >got'
ok 'in one line' 'oneline err && [ ! -s got ] && grep -q "largest part are the .* what would help: " err'
fails 73 'nowhere to put them' '
    TMPDIR=$PWD/absent llmc-eval -m all -d many -l 256 --memory "$(($(least_eval -m all -d many -l 256) + 1))M" 2>err'
fails 71 'llmc-pack refuses, too' 'llmc-pack -C all.work -o packed --memory 1M 2>err'
ok 'in one line' 'oneline err && [ ! -e packed ] && clean absent'
fails 71 'and to make a weight dense that does not fit' 'llmc-pack --dequantize all -o dense --memory 1M 2>err'
ok 'in one line, with nothing written' 'oneline err && [ ! -e dense ] && clean absent && llmc-pack --dequantize all -o dense --memory 1G'

# --- a model too large to be here ---

if "$build/t/random-model" -o big --sparse --layers 80 --hidden 8192 --intermediate 28672 --heads 64 2>big.err; then
    ok 'a 70B model, of headers alone: what it needs' '
        llmc-shard -m big -s W4A16 -n 128 -l 2048 --plan --ranks 1,8 >big.tsv
        awk -F "\t" "NR == 3 { m = \$8; l = \$9 } NR == 4 && \$8 < m { ok = 1 }
            END { exit !(ok && m > 17e9 && m < 40e9 && l > 4e9 && l < 6e9) }" big.tsv
        du -s big | awk "{ exit \$1 > 10000 }"
    '
else
    skip 'a 70B model, of headers alone: what it needs' "$(head -n 1 big.err)"
fi

# --- ranks share what is on disk ---

# Bytes of the model's file in a process: resident, and its part of them.
mapped() {      # PID
    awk '/^[0-9a-f]+-/ { in_model = /model.safetensors/ } in_model && /^Rss:/ { r += $2 } in_model && /^Pss:/ { p += $2 }
        END { print r * 1024, p * 1024 }' "/proc/$1/smaps"
}

if [ -r /proc/self/smaps ]; then
    ok 'two ranks hold one copy of the weights' '
        llmc-shard -C two.work -m small -s W4A16 -g 32 -d ids --block-tokens 64 --ranks 2 -q
        for r in 0 1; do
            mkfifo fifo$r
            sleep 60 <fifo$r & echo $! >sleep$r
            llmc-calib -C two.work -q --frames inline --rank $r --ranks 2 >fifo$r 2>err$r & echo $! >pid$r
        done
        n=0
        until mapped "$(cat pid0)" >m0 && mapped "$(cat pid1)" >m1 && read -r r0 p0 <m0 && read -r r1 p1 <m1 &&
            [ "$r0" -gt 60000 ] && [ "$r1" -gt 60000 ] && grep -q pipe_write "/proc/$(cat pid0)/wchan"; do
            n=$((n + 1)); [ $n -lt 100 ] || break; sleep 0.1
        done
        cat m0 m1 err0 err1
        kill $(cat pid0 pid1 sleep0 sleep1) || :
        wait || :
        [ "$r0" -gt 60000 ] && [ "$r1" -gt 60000 ] && [ $(((p0 + p1) * 10)) -lt $(((r0 + r1) * 6)) ]
    '
else
    skip 'two ranks hold one copy of the weights' 'no /proc/PID/smaps'
fi
done_testing
