#!/bin/sh
# kill -9 of each stage at many moments: the others end by themselves, and the next run makes the same bytes
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"
many_runs

ids 64 8 >ids
short small
opts="-s W4A16 -g 32 -d ids -q"
llmc run small $opts -o good -C done >/dev/null
weights done >good.sums
llmc-shard -C plan -m small $opts

ok 'undisturbed it is finished' '[ "$(grep -c . good.sums)" -eq 14 ]'

# What is in w is whole.
whole() {
    for f in w/weights/*.safetensors; do
        [ -L "$f" ] || cmp "done${f#w}" "$f" || return 1
    done
}

# And the same command finishes it.
resumes() {
    whole || return 1
    rm -rf out
    llmc run small $opts -o out -C w >log 2>err || { cat err; return 1; }
    [ ! -s err ] || { cat err; return 1; }
    weights w | diff good.sums - && cmp good/model.safetensors out/model.safetensors && cmp good/config.json out/config.json
}

stage() {   # name options: its pid is in pid.NAME while it runs, then its exit status in st.NAME
    s=$1
    shift
    set -- "llmc-$s" -C w -q "$@"
    [ "$s" != "$sick" ] || set -- "LLMC_FAIL=$spec" LLMC_FAIL_LOG=struck "LD_PRELOAD=$build/t/fail.so" \
        "ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-}" "$@"
    rc=0
    timeout 30 sh -c 'echo $$ >"pid.$0"; exec env "$@"' "$s" "$@" 2>"err.$s" || rc=$?
    echo $rc >"st.$s"
}

start() {   # stage that runs with LLMC_FAIL=SPEC, SPEC, options of llmc-calib
    sick=$1 spec=$2
    rm -rf w struck pid.* st.*
    cp -a plan w
    { stage calib ${3:-} | stage hessian | stage gptq >out.txt; } &
    until [ -s pid.calib ] && [ -s pid.hessian ] && [ -s pid.gptq ]; do
        sleep 0.002
    done
}

finish() {
    wait $!
    c=$(cat st.calib) h=$(cat st.hessian) g=$(cat st.gptq)
    echo "exit status $c $h $g; $(cat struck err.* 2>/dev/null | tr '\n' ';')"
    case " $c $h $g " in
    *' 124 '*) echo 'it did not end'; return 1 ;;
    esac
}

# Raises the number of the call until it does not happen any more.
killed() {  # stage op pattern step [options of calib]
    n=1 times=0
    while :; do
        start "$1" "$2:$n:KILL:$3" "${5:-}"
        finish || return 1
        [ -s struck ] || break
        case "$1 $c $h $g" in
        'calib 137 0 75' | 'calib 137 65 75' | 'calib 137 75 75') ;; # between steps, in a frame, in a step
        'calib 137 0 0') weights w | diff good.sums - || return 1 ;; # behind its last frame
        'hessian 141 137 75' | 'hessian 0 137 75' | 'gptq 141 141 137' | 'gptq 0 141 137' | 'gptq 0 0 137') ;;
        *) return 1 ;;
        esac
        resumes || return 1
        n=$((n + $4)) times=$((times + 1))
    done
    [ "$c $h $g" = '0 0 0' ] && [ $times -gt 2 ] && weights w | diff good.sums -
}

ok 'llmc-calib, at writes to the pipe' 'killed calib write stdout 7'
ok 'llmc-calib, at anything it does to a file' 'killed calib any "*" 5'
ok 'llmc-calib, as it saves states' 'killed calib any "*state/*" 17 "--state-seconds 0"'
ok 'llmc-hessian, at anything it does to a Hessian' 'killed hessian any "*hessian/*" 13'
ok 'llmc-gptq, at anything it does to a weight' 'killed gptq any "*weights/*" 23'
ok 'llmc-gptq, at renames' 'killed gptq rename "*" 4'
ok 'llmc-gptq, at syncs' 'killed gptq fsync "*" 9'

# --- by the clock ---

after() {   # stage seconds
    start - -
    sleep "$2"
    kill -9 "$(cat "pid.$1")" 2>/dev/null || :
    finish && resumes
}

for s in calib hessian gptq; do
    for t in 0.01 0.05 0.1; do
        ok "llmc-$s, after $t s" "after $s $t"
    done
done

# --- the whole ---

ok 'llmc run, again and again until it is through' '
    rm -rf w out
    for t in 0.02 0.05 0.08 0.1 0.15 0.2 0.3 0.4 0.5; do
        setsid llmc run small $opts -o out -C w >log 2>err &
        pid=$!
        sleep $t
        kill -9 -- -$pid 2>/dev/null || :
        wait $pid || :
        [ ! -e out ] || break
        [ ! -e w/plan.json ] || whole || exit 1
    done 2>/dev/null
    resumes
'
ok 'a stage that is killed is what llmc run ends with' '
    rm -rf w out
    cp -a plan w
    rc=0
    ASAN_OPTIONS=verify_asan_link_order=0 LLMC_FAIL=rename:3:KILL:*weights* LD_PRELOAD=$build/t/fail.so llmc run small $opts -o out -C w >log 2>err || rc=$?
    cat err
    echo "exit status $rc"
    [ "$rc" -eq 137 ]
    [ ! -e out ]
    resumes
'

full() {    # stage pattern: the disk is full at its second write there
    rm -rf w out
    rc=0
    ASAN_OPTIONS=verify_asan_link_order=0 LLMC_FAIL=write:2:ENOSPC:$2 LD_PRELOAD=$build/t/fail.so llmc run small $opts -o out -C w --keep >log 2>err || rc=$?
    cat err
    echo "exit status $rc"
    [ "$rc" -eq 74 ] && grep -q "^llmc-$1: .*No space left" err && [ ! -e out ] && clean none && resumes
}

ok 'llmc run: the disk is full in llmc-shard' 'full shard "*.tsv.tmp.*"'
ok 'llmc run: the disk is full in llmc-hessian' 'full hessian "*/hessian/*"'
ok 'llmc run: the disk is full in llmc-gptq' 'full gptq "*/weights/*"'
ok 'llmc run: the disk is full in llmc-pack' 'full pack "*/out.tmp.*"'

done_testing
