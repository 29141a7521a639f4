#!/bin/sh
# TERM, INT, HUP and USR1: what is begun is finished and published, exit status 75; a second one ends it at once
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"
no_leak_check

ids 64 8 >ids
short small
opts="-s W4A16 -g 32 -d ids -q"
llmc run small $opts -o good -C done >/dev/null
weights done >good.sums
llmc-shard -C plan -m small $opts

whole() {
    for f in w/weights/*.safetensors; do
        [ -L "$f" ] || [ ! -e "done${f#w}" ] || cmp "done${f#w}" "$f" || return 1   # ranks cut modules
    done
}

resumes() { # [options]
    whole || return 1
    rm -rf out
    llmc run small $opts -o out -C w "$@" >log 2>err || { cat err; return 1; }
    [ ! -s err ] || { cat err; return 1; }
    case $* in
    *ranks*) ;;
    *) weights w | diff good.sums - || return 1 ;;
    esac
    cmp good/model.safetensors out/model.safetensors && cmp good/config.json out/config.json
}

# llmc-gptq stops at its third publication, and whoever is told is told then. w has a plan: llmc-shard renames links.
halted() {  # command: its pid is in $pid
    rm -f struck
    LLMC_FAIL=rename:3:${how:-STOP}:*weights* LLMC_FAIL_LOG=struck LD_PRELOAD=$build/t/fail.so \
        ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-} env --default-signal=INT,HUP "$@" >log 2>err &
    pid=$!
    until [ -s struck ]; do
        kill -0 $pid || { cat err; return 1; }
        sleep 0.01
    done
}

go_on() {   # all of them, until none is left: a second rank may stop later
    while [ -n "$(find w/log -name 'gptq.*.pid')" ]; do
        for f in w/log/gptq.*.pid; do
            { read -r p <"$f" && kill -CONT "$p"; } 2>/dev/null || :
        done
        sleep 0.02
    done
}

# --- llmc run ---

stopped() { # signal options
    rm -rf w out
    cp -a plan w
    signal=$1
    shift
    halted llmc run small $opts -o out -C w "$@" || return 1
    kill -s "$signal" $pid
    sleep 0.1
    go_on
    came_back "$@"
}

came_back() {
    rc=0
    wait $pid || rc=$?
    echo "exit status $rc"
    cat err
    [ "$rc" -eq 75 ] && grep -qx "llmc: stopped; the same command goes on, from w" err && [ ! -e out ] || return 1
    left=$(find w -name '*.tmp.*' -o -name '*.pid' -o -name 'stop.*')
    [ -z "$left" ] || { echo "left over: $left"; return 1; }
    left=$(find w/weights -type l | wc -l)
    echo "$left modules are left"
    [ "$left" -gt 0 ] && resumes "$@"
}

for s in TERM INT USR1 HUP; do
    ok "llmc run, $s" "stopped $s -j 1"
done
ok 'llmc run, two ranks by files' 'stopped TERM --ranks 2 --comm files'
if llmc-hessian --version | grep -q 'MPI yes' && command -v mpirun >/dev/null; then
    ok 'llmc run, two ranks by MPI' 'stopped USR1 --ranks 2 --comm mpi'
else
    skip 'llmc run, two ranks by MPI' 'no MPI'
fi
ok 'llmc run: the whole process group is told, as by a terminal' '
    rm -rf w out
    cp -a plan w
    halted setsid llmc run small $opts -o out -C w -j 1
    kill -s INT -- -$pid
    sleep 0.1
    go_on
    came_back
'
ok 'llmc run: a second signal ends it at once' '
    rm -rf w out
    cp -a plan w
    how=NAP
    halted llmc run small $opts -o out -C w -j 1
    kill -s TERM $pid
    sleep 0.4
    kill -s TERM $pid
    rc=0
    wait $pid || rc=$?
    cat err
    [ "$rc" -eq 75 ] && [ "$(find w/weights -type f -name "*.safetensors" | wc -l)" -eq 2 ] && resumes
'
ok 'llmc pipeline passes it on' '
    rm -rf w && cp -a plan w
    halted llmc pipeline -C w -q
    kill -s TERM $pid
    sleep 0.1
    cat w/log/gptq.*.pid | while read -r p; do kill -CONT "$p"; done
    rc=0
    wait $pid || rc=$?
    cat err
    [ "$rc" -eq 75 ] && [ -z "$(find w -name "*.tmp.*" -o -name "*.pid")" ] && [ -n "$(find w/weights -type l)" ] && resumes
'

# --- each tool alone: told at a given call, by itself ---

told() {    # command: exit 75 and one line of it that says so
    rc=0
    "$@" 2>err || rc=$?
    echo "exit status $rc"
    cat err
    [ "$rc" -eq 75 ] && oneline err && grep -q "stopped by a signal; the same command goes on" err && [ -s struck ]
}

for s in TERM INT USR1 HUP; do
    ok "llmc-shard, $s" '
        rm -rf w struck
        LLMC_FAIL_LOG=struck told faulty "create:1:$s:*" llmc-shard -C w -m small $opts
        [ ! -e w/plan.json ] && clean w && resumes'
    ok "llmc-pack, $s" '
        rm -rf out struck
        LLMC_FAIL_LOG=struck told faulty "write:30:$s:*out.tmp*" llmc-pack -C done -o out -q
        clean none && [ ! -e out ] && llmc-pack -C done -o out -q && diff -r good out'
done
ok 'llmc-pack, between shards' '
    rm -rf out struck
    LLMC_FAIL_LOG=struck told faulty "rename:3:USR1:*out.tmp*" llmc-pack -C done -o out -q --shard-size 40K -j 1
    [ ! -e out ] && [ "$(ls out.tmp.*/*.safetensors | wc -l)" -ge 1 ]
    llmc-pack -C done -o out -q --shard-size 40K && clean none
    rm -rf out2; llmc-pack -C done -o out2 -q --shard-size 40K && diff -r out2 out'
ok 'llmc-pack, in a tar' '
    rm -f x.tar struck
    LLMC_FAIL_LOG=struck told faulty "write:30:USR1:*x.tar*" llmc-pack -C done -o x.tar -q
    [ ! -e x.tar ] && clean none'
ok 'llmc-gptq finishes the module that it is at' '
    rm -rf w struck && cp -a plan w
    { llmc-calib -C w -q 2>err.calib | llmc-hessian -C w -q 2>err.hessian; } | {
        rc=0
        LLMC_FAIL_LOG=struck faulty "create:2:TERM:*weights*" llmc-gptq -C w -q >out.txt 2>err || rc=$?
        echo "exit status $rc"; cat err
        [ "$rc" -eq 75 ] && oneline err && [ -s struck ]; }
    [ "$(grep -c . out.txt)" -eq 2 ] && [ "$(find w/weights -type f | wc -l)" -eq 2 ] && resumes'
ok 'a second signal ends llmc-pack at once, and removes what was not finished' '
    mkfifo pipe
    llmc-pack -C done -o - -q >pipe 2>err &
    pid=$!
    exec 4<pipe
    dd bs=1 count=1 <&4 >byte 2>/dev/null   # it has begun, and soon waits for room
    sleep 0.2
    kill -s TERM $pid; sleep 0.4; kill -s TERM $pid
    rc=0
    wait $pid || rc=$?
    exec 4<&-
    [ "$rc" -eq 143 ] && clean none'

done_testing
