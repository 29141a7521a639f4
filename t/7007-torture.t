#!/bin/sh
# Every call that changes a file fails or is the last one, in every tool: one clear line, and the next run ends with the
# bytes of an undisturbed one. TORTURE=full (make torture): every call, 200 random moments; else a call of each kind.
# TOOLS and MOMENTS: of which tools the calls, and how many random moments of each.
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"
many_runs
no_leak_check

if [ "${TORTURE:-}" = full ]; then
    moments=${MOMENTS:-40} full=1
else
    moments=${MOMENTS:-1} full=
fi
ids 64 8 >ids
short small
opts="-s W4A16 -g 32 -d ids -q"
cut='--shard-size 40K -q'
llmc run small $opts -o good -C done >/dev/null
llmc-pack -C done -o cut $cut >/dev/null
llmc-pack -C done -o good.tar -q >/dev/null
weights done >good.sums
llmc-shard -C plan -m small $opts
cp -a done sums && rm -rf sums/hessian/*
llmc-calib -C done -q --again -m '*.0.*' >frames
cp -a sums summed && llmc-hessian -C summed -q --again --keep <frames >/dev/null
tasks=$(find plan/weights -type l | wc -l)

# --- what is run, with a fault in the tool $tool ---

under() {   # command: with the fault if it is the sick one; status in st.NAME, messages in err.NAME
    name=${1#llmc-}
    rc=0
    if [ "$name" = "$tool" ]; then
        LLMC_FAIL=$spec LLMC_FAIL_LOG=struck LD_PRELOAD=$build/t/fail.so \
            ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-} "$@" 2>"err.$name" || rc=$?
    else
        "$@" 2>"err.$name" || rc=$?
    fi
    echo $rc >"st.$name"
}

setup() {
    rm -rf w out out.tmp.* x.tar* struck st.* err.*
    case $tool in
    calib|hessian|gptq) cp -a plan w ;;
    sum) cp -a sums w ;;
    esac
}

alone() {   # name command: of the tool that is called otherwise here
    t_tool=$tool tool=$1
    shift
    under "$@"
    mv "st.$tool" "st.$t_tool"
    mv "err.$tool" "err.$t_tool"
    tool=$t_tool
}

attempt() {
    case $tool in
    shard) under llmc-shard -C w -m small $opts ;;
    sum) alone hessian llmc-hessian -C w -q --again --keep <frames >names ;;
    pack) under llmc-pack -C done -o out $cut -j1 >/dev/null ;;
    tar) alone pack llmc-pack -C done -o x.tar -q >/dev/null ;;
    *) under llmc-calib -C w -q --state-seconds 0 | under llmc-hessian -C w -q | under llmc-gptq -C w -q >out.txt ;;
    esac
}

# What there is now is whole, and running the same again ends it; tasks that were published are not done again.
again() {
    case $tool in
    pack)
        llmc-pack -C done -o out -f $cut >/dev/null && diff -r cut out && clean none ;;
    sum)
        find w/hessian -type f ! -name '*.tmp.*' | while read -r f; do cmp "summed${f#w}" "$f" || return 1; done
        llmc-hessian -C w -q --again --keep <frames >names && diff -r summed/hessian w/hessian -x '*.tmp.*' ;;
    tar)
        [ ! -e x.tar ] || cmp good.tar x.tar || return 1
        llmc-pack -C done -o x.tar -f -q >/dev/null && cmp good.tar x.tar && rm -f x.tar.tmp.* ;;
    *)
        left=$tasks
        if [ -e w/plan.json ]; then
            for f in w/weights/*.safetensors; do
                [ -L "$f" ] || cmp "done${f#w}" "$f" || return 1
            done
            left=$(find w/weights -type l -name '*.safetensors' | wc -l)
        fi
        rm -f w/log/llmc-gptq.*
        llmc-shard -C w -m small $opts || return 1
        llmc-calib -C w -q | llmc-hessian -C w -q | llmc-gptq -C w -q >again.txt || return 1
        weights w | diff good.sums - || return 1
        [ "$(wc -l <again.txt)" -eq "$left" ] || { echo "$left tasks were left, $(wc -l <again.txt) done"; return 1; }
        left=$(find w -name '*.tmp.*'; find w/hessian w/state -type f | grep -v '/1\(/\|$\)' | head -n 3)
        [ -z "$(find w -name '*.tmp.*')" ] || { echo "left over: $left"; return 1; } ;;
    esac
}

# --- every call fails ---

# What is said is one line; a failure that does not matter, as to close what was read, is none.
told() {    # op
    s=$(cat "st.$tool")
    case $s in
    73|74) oneline "err.$tool" ;;
    0) case "$1 $(cat struck)" in
       close*|*/log/*) ;;
       *) echo "$(cat struck): and yet it ended well"; return 1 ;;
       esac ;;
    *) echo "exit status $s"; return 1 ;;
    esac
}

walk() {    # tool op errno pattern step
    tool=$1 n=1 count=0
    [ "$full" ] || n=$5
    while [ "$full" ] || [ $count -eq 0 ]; do
        spec="$2:$n:$3:$4"
        setup
        attempt
        [ -s struck ] || break
        if [ "$3" = KILL ]; then
            [ "$(cat "st.$tool")" -eq 137 ]
        else
            told "$2"
        fi && again >said 2>&1 || { echo "$spec: $(cat struck)"; cat st.* err.* said; return 1; }
        n=$((n + 1)) count=$((count + 1))
    done
    echo "$count" >>count
    echo "$count calls"
    [ "$count" -gt 0 ]
}

# Which call the short version takes: of writes, of others.
: >count
for t in 'shard 5 4' 'calib 20 3' 'hessian 20 5' 'sum 10 1' 'gptq 40 7' 'pack 30 9' 'tar 30 1'; do
    set -- $t
    case " ${TOOLS-$1} " in *" $1 "*) ;; *) continue ;; esac
    ok "llmc-$1: the disk is full at a write" "walk $1 write ENOSPC '*' $2"
    ops='fsync rename create close'
    [ "$1" != hessian ] || ops='rename create close' # in a pipe it syncs nothing
    if [ ! "$full" ]; then
        ok "llmc-$1: a rename fails" "walk $1 rename EIO '*' 1"
        ops=${ops% create close}
    fi
    [ ! "$full" ] || ok "llmc-$1: a write fails" "walk $1 write EIO '*'"
    for op in ${full:+$ops}; do
        ok "llmc-$1: $op fails" "walk $1 $op EIO '*' $3"
    done
    for op in write $ops; do
        ok "llmc-$1: killed at $op" "walk $1 $op KILL '*' $3"
    done
done
ok "llmc-calib: the pipe fails" "walk calib write EIO stdout 10"
ok 'llmc-hessian: a file cannot be made long enough' '
    tool=hessian spec="truncate:1:ENOSPC:*"
    setup; attempt
    [ ! -s struck ] || { told truncate && again; }'

# --- kill -9 at random moments ---

# Seconds of a whole run, and a random number of them.
seconds() {
    awk -v seed="$1" -v most="$2" 'BEGIN { srand(seed); printf "%.3f\n", rand() * most }'
}

whole() {
    from=$(date +%s%N)
    tool=none spec=
    setup
    cp -a plan w
    attempt
    echo $((($(date +%s%N) - from) / 1000000)) | awk '{ print $1 / 1000 }'
}
most=$(whole)

moment() {  # tool number
    tool=$1 spec=none
    setup
    case $tool in
    shard) llmc-shard -C w -m small $opts 2>/dev/null & pid=$! ;;
    pack) llmc-pack -C done -o out $cut >/dev/null 2>&1 & pid=$! ;;
    *) llmc pipeline -C w -q >/dev/null 2>&1 & pid=$! ;;
    esac
    sleep "$(seconds $2 "$most")"
    case $tool in
    shard|pack) kill -9 $pid ;;
    *) read -r p <w/log/$tool.*.pid && kill -9 "$p" ;;
    esac 2>/dev/null
    wait $pid 2>/dev/null
    again
}

[ "$moments" -gt 0 ] && for s in shard calib hessian gptq pack; do
    ok "llmc-$s: killed at $moments random moments" '
        i=0
        while [ $i -lt $moments ]; do
            i=$((i + 1))
            moment $s $i >said 2>&1 || { echo "moment $i of $most s"; cat said; exit 1; }
        done'
done
echo "# $(awk '{ n += $1 } END { print n }' count) calls that failed or were the last one; a run takes $most s"

done_testing
