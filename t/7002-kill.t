#!/bin/sh
# kill -9 of each stage at many moments: the others end by themselves, and the next run makes the same bytes
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

ids 64 12 >ids
opts="-s W4A16 -g 32 -d ids -q"
llmc run "$demo" $opts -o good -C done >/dev/null
weights done >good.sums
llmc-shard -C plan -m "$demo" $opts

ok 'undisturbed it is finished' '[ "$(grep -c . good.sums)" -eq 28 ]'

# What is in w is whole; the same command finishes it.
resumes() {
    for f in w/weights/*; do
        [ -L "$f" ] || cmp "done${f#w}" "$f" || return 1
    done
    rm -rf out
    llmc run "$demo" $opts -o out -C w >log 2>err || { cat err; return 1; }
    [ ! -s err ] || { cat err; return 1; }
    weights w | diff good.sums - && cmp good/model.safetensors out/model.safetensors && cmp good/config.json out/config.json
}

# The three stages with a pipe between them and a watchdog over them; $c $h $g become their exit status.
pipeline() {    # stage of them that runs with LLMC_FAIL=spec, spec, options of calib
    rm -f p1 p2
    mkfifo p1 p2
    for s in calib hessian gptq; do
        in=/dev/null out=out.txt o=
        case $s in
        calib) out=p1 o=${3:-} ;;
        hessian) in=p1 out=p2 ;;
        gptq) in=p2 ;;
        esac
        if [ "$s" = "${1:-}" ] && [ -n "${2:-}" ]; then
            LLMC_FAIL_LOG=struck faulty "$2" llmc-$s -C w -q $o <$in >$out 2>err.$s &
        else
            llmc-$s -C w -q $o <$in >$out 2>err.$s &
        fi
        eval "pid_$s=\$!"
    done
    (sleep 30; kill $pid_calib $pid_hessian $pid_gptq) >watchdog 2>&1 &
    dog=$!
}

finish() {
    c=0 h=0 g=0
    wait $pid_calib || c=$?
    wait $pid_hessian || h=$?
    wait $pid_gptq || g=$?
    kill $dog || { echo 'the stages had to be ended'; return 1; }
    wait $dog || :
    echo "exit status $c $h $g; $(cat struck err.* 2>/dev/null | tr '\n' ';')"
}

# Raises the number of the call until it does not happen any more.
killed() {  # stage op pattern step [options of calib]
    n=1 times=0
    while :; do
        rm -rf w struck
        cp -a plan w
        pipeline "$1" "$2:$n:KILL:$3" "${5:-}"
        finish 2>/dev/null || return 1
        [ -s struck ] || break
        case $1 in
        calib) [ $c -eq 137 ] && [ $g -ne 0 ] || return 1 ;;
        hessian) [ $h -eq 137 ] && [ $c -eq 141 ] && [ $g -eq 75 ] || return 1 ;;
        gptq) [ $g -eq 137 ] && { [ $c -eq 141 ] || [ $c -eq 0 ]; } || return 1 ;;
        esac
        resumes || return 1
        n=$((n + $4)) times=$((times + 1))
    done
    [ "$c $h $g" = '0 0 0' ] && [ $times -gt 2 ] && weights w | diff good.sums -
}

ok 'llmc-calib, at writes to the pipe' 'killed calib write stdout 11'
ok 'llmc-calib, at anything it does to a file' 'killed calib any "*" 7'
ok 'llmc-calib, as it saves states' 'killed calib any "*state/*" 23 "--state-seconds 0"'
ok 'llmc-hessian, at anything it does to a Hessian' 'killed hessian any "*hessian/*" 19'
ok 'llmc-gptq, at anything it does to a weight' 'killed gptq any "*weights/*" 37'
ok 'llmc-gptq, at renames' 'killed gptq rename "*" 5'
ok 'llmc-gptq, at syncs' 'killed gptq fsync "*" 13'

# --- by the clock ---

after() {   # stage seconds
    rm -rf w struck
    cp -a plan w
    pipeline
    sleep "$2"
    eval "kill -9 \$pid_$1" 2>/dev/null || :
    finish 2>/dev/null && resumes
}

for s in calib hessian gptq; do
    for t in 0 0.01 0.05 0.1 0.2; do
        ok "llmc-$s, after $t s" "after $s $t"
    done
done

# --- the whole ---

ok 'llmc run, again and again until it is through' '
    rm -rf w out
    for t in 0.02 0.05 0.08 0.1 0.15 0.2 0.3 0.4 0.5; do
        setsid llmc run "$demo" $opts -o out -C w >log 2>err &
        pid=$!
        sleep $t
        kill -9 -- -$pid 2>/dev/null || :
        wait $pid || :
        [ ! -e out ] || break
        for f in w/weights/*; do
            [ ! -f "$f" ] || [ -L "$f" ] || cmp "done${f#w}" "$f" || exit 1
        done
    done 2>/dev/null
    resumes
'
ok 'llmc run says which stage was killed' '
    rm -rf w out
    rc=0
    LLMC_FAIL=rename:3:KILL:*weights* LD_PRELOAD=$build/t/fail.so llmc run "$demo" $opts -o out -C w >log 2>err || rc=$?
    cat err
    echo "exit status $rc"
    [ "$rc" -eq 137 ]
    [ ! -e out ]
    resumes
'

# --- signals that can be caught ---

ok 'terminated, a stage leaves no temporary file' '
    rm -rf w
    cp -a plan w
    llmc-calib -C w -s 3 | llmc-hessian -C w --keep >t
    for n in 1 2 3; do
        llmc-gptq -C w --again -m "*.0.mlp.down*" <t >out 2>err &
        pid=$!
        sleep 0.0$n
        kill $pid 2>/dev/null || :
        wait $pid || :
        [ -z "$(find . -name "*.tmp.*")" ]
    done
'

done_testing
