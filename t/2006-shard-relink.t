#!/bin/sh
# work directories that move: relative links, llmc-shard --relink
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

ids 64 8 >ids
mkdir a
short a/small
opts="-s W4A16 -g 32 -d ids -q"
llmc run a/small $opts -o good -C done >/dev/null
weights done >good.sums
mkdir a/work
llmc-shard -C a/work/w -m a/small $opts

finishes() { # WORK: every stage, and the bytes of good
    llmc-calib -C "$1" -q | llmc-hessian -C "$1" -q | llmc-gptq -C "$1" -q >/dev/null && rm -rf out &&
        llmc-pack -C "$1" -o out -q >/dev/null && cmp good/model.safetensors out/model.safetensors
}

ok 'links are relative' '
    for f in a/work/w/weights/*; do
        [ "$(readlink "$f")" = ../../../small/model.safetensors ] && cmp "$f" a/small/model.safetensors || exit 1
    done'
ok 'and so is the name of the model' 'grep -q "\"model\": *\"../../small\"" a/work/w/plan.json'
ok 'moved together nothing needs to be done' 'mv a b && finishes b/work/w && mv b a && weights a/work/w | diff good.sums -'

rm -rf a/work/w && llmc-shard -C a/work/w -m a/small $opts
ok 'moved alone the model is not found' '
    mkdir -p deep/er && mv a/work/w deep/er
    rc=0; llmc-gptq -C deep/er/w </dev/null 2>err || rc=$?
    cat err
    [ "$rc" -eq 66 ] && oneline err'
fails 66 'nor by --relink without a word' 'llmc-shard -C deep/er/w --relink 2>err'
ok '  ... which asks for it' 'cat err; oneline err && grep -q "say with -m where it is" err'
ok '--relink -m finds it' '
    llmc-shard -C deep/er/w --relink -m a/small
    for f in deep/er/w/weights/*; do [ "$(readlink -f "$f")" = "$(readlink -f a/small/model.safetensors)" ] || exit 1; done
    clean none && finishes deep/er/w && weights deep/er/w | diff good.sums -'

rm -rf a/work/w && llmc-shard -C a/work/w -m a/small $opts
ok 'half done, then the model moves' '
    llmc-calib -C a/work/w -q 2>err | llmc-hessian -C a/work/w -q --keep 2>err | { faulty "rename:5:TERM:*weights*" llmc-gptq -C a/work/w -q || :; } >/dev/null 2>&1
    done=$(find a/work/w/weights -type f | wc -l)
    [ "$done" -gt 0 ] && [ "$done" -lt 14 ]
    (cd a/work/w/weights && find . -type f | sort | xargs sha256sum) >before
    mkdir c && mv a/small c/model
    llmc-shard -C a/work/w --relink -m c/model
    (cd a/work/w/weights && find . -type f | sort | xargs sha256sum) | diff before -
    finishes a/work/w && weights a/work/w | diff good.sums -
    mv c/model a/small'
ok 'another model is refused' '
    cp -r a/small other && perl -e "open F, \"+<\", \"other/model.safetensors\"; seek F, 30000, 0; print F \"x\" x 70000"
    rc=0; llmc-shard -C a/work/w --relink -m other 2>err || rc=$?
    cat err
    [ "$rc" -eq 65 ] && oneline err && grep -q "other: not the model" err && ! grep -q other a/work/w/plan.json'
ok 'where the model and we have but the root in common links are absolute' '
    rm -rf v && llmc-shard -C v -m "$demo" $opts -n 4
    here=$(readlink -f .) there=$(realpath "$demo")
    readlink v/weights/*q_proj.safetensors | sort -u >links
    case $there in
    "/$(echo "$here" | cut -d/ -f2)"/*) ! grep "^/" links ;;
    *) [ "$(cat links)" = "$there/model.safetensors" ] ;;
    esac'
ok 'killed at any moment, --relink is done again' '
    n=1
    while :; do
        rm -rf w struck && cp -a done w && cp -a plan.links/. w/weights 2>/dev/null || :
        LLMC_FAIL_LOG=struck faulty "any:$n:KILL:*" llmc-shard -C w --relink -m a/small || [ $? -eq 137 ]
        [ -s struck ] || break
        llmc-shard -C w --relink -m a/small && llmc-pack -C w -o out -f -q >/dev/null && cmp good/model.safetensors out/model.safetensors || exit 1
        n=$((n + 2))
    done
    [ "$n" -gt 6 ]'
ok 'the disk is full at any write of it' '
    n=1
    while :; do
        rm -rf w struck && cp -a done w
        rc=0
        LLMC_FAIL_LOG=struck faulty "write:$n:ENOSPC:*" llmc-shard -C w --relink -m a/small 2>err || rc=$?
        [ -s struck ] || break
        [ "$rc" -eq 74 ] && oneline err && llmc-shard -C w --relink -m a/small || { cat err; exit 1; }
        n=$((n + 1))
    done
    [ "$n" -gt 3 ]'

done_testing
