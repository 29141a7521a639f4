#!/bin/sh
# llmc-gptq and llmc-hessian when calls fail or they are killed: whole files or none, and the next run makes the same
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

ids 64 4 >ids
llmc-shard -C plan -m "$demo" -s W4A16 -g 32 -d ids -q
llmc-calib -C plan -s 0 >x
llmc-hessian -C plan --keep <x | sed 's,plan/,w/,' >tasks
cp -a plan good
llmc-gptq -C good >/dev/null 2>&1
for m in q k v; do echo "model.layers.0.self_attn.${m}_proj.safetensors"; done >names

# Each of the three is a whole file or a link; no temporary file stays.
whole() {
    while read -r f; do
        [ -L "w/weights/$f" ] || cmp "good/weights/$f" "w/weights/$f" || return 1
    done <names
    [ "$(find w/weights -type f | wc -l)" -le 3 ]
}

all() {
    while read -r f; do
        cmp "good/weights/$f" "w/weights/$f" || return 1
    done <names
    [ "$(find w/weights -type l | wc -l)" -eq 25 ]
}

ok 'undisturbed there are three files' 'rm -rf w; cp -a good w; all'

each() {    # op errno exit-status pattern
    n=1
    while :; do
        rm -rf w struck
        cp -a plan w
        rc=0
        LLMC_FAIL_LOG=struck faulty "$1:$n:$2:$4" llmc-gptq -C w -m '*.0.self_attn.[qkv]*' <tasks >out 2>err || rc=$?
        [ -s struck ] || break
        echo "$(cat struck): exit status $rc, want $3; $(cat err)"
        [ "$rc" -eq "$3" ] && whole || return 1
        [ "$2" = KILL ] || { oneline err && clean none || return 1; }
        llmc-gptq -C w -m '*.0.self_attn.[qkv]*' <tasks >out && all || return 1
        n=$((n + 1))
    done
    [ "$rc" -eq 0 ] && [ "$n" -gt 3 ] && all
}

ok 'the disk is full at any write' 'each write ENOSPC 74 "*/weights/*"'
ok 'any sync fails' 'each fsync EIO 74 "*"'
ok 'any file cannot be closed' 'each close EIO 74 "*/weights/*.tmp.*"'
ok 'any rename fails' 'each rename EIO 74 "*"'
ok 'any file cannot be created' 'each create EACCES 73 "*weights/*"'
ok 'killed before any write, sync, rename, creation or close' 'each any KILL 137 "*"'
ok 'any write is short' '
    n=1
    while :; do
        rm -rf w struck
        cp -a plan w
        LLMC_FAIL_LOG=struck faulty "write:$n:SHORT:*/weights/*" \
            llmc-gptq -C w -m "*.0.self_attn.[qkv]*" <tasks || exit 1
        all || exit 1
        [ -s struck ] || break
        n=$((n + 1))
    done
    [ "$n" -gt 3 ]
'
ok 'a log that cannot be written costs a warning alone' '
    for f in write:1:ENOSPC:*/log/* create:1:EACCES:*log/*; do
        rm -rf w
        cp -a plan w
        faulty "$f" llmc-gptq -C w -m "*.0.self_attn.[qkv]*" <tasks 2>err
        cat err
        oneline err
        grep -q "goes on without it" err
        all
    done
'

# --- stdout ---

fails 74 'llmc-gptq: stdout is full' '
    rm -rf w
    cp -a plan w
    llmc-gptq -C w -m "*.0.self_attn.[qkv]*" <tasks >/dev/full 2>err
'
ok '  ... which is said in one line' 'oneline err && grep -q "No space left" err'
ok '  ... and what is done is whole' 'whole'
fails 74 'llmc-hessian: stdout is full' 'llmc-hessian -C w --again <x >/dev/full 2>err'
ok '  ... which is said in one line' 'oneline err && grep -q "No space left" err'
fails 74 'llmc-calib: stdout is full' 'llmc-calib -C w --again -s 0 >/dev/full 2>err'
ok '  ... which is said in one line' 'oneline err && grep -q "No space left" err'
ok 'llmc-calib dies quietly with its reader' '
    { rc=0; llmc-calib -C w --again 2>err || rc=$?; echo $rc >rc; } | :
    cat rc err
    [ "$(cat rc)" -eq 141 ]
    [ ! -s err ]
'

# --- llmc-hessian ---

hessian() { # op errno exit-status
    n=1
    while :; do
        rm -rf w struck
        cp -a plan w
        rm -r w/hessian
        rc=0
        LLMC_FAIL_LOG=struck faulty "$1:$n:$2:*hessian/*" llmc-hessian -C w --keep <x >out 2>err || rc=$?
        [ -s struck ] || break
        echo "$(cat struck): exit status $rc, want $3; $(cat err)"
        [ "$rc" -eq "$3" ] || return 1
        [ "$2" = KILL ] || { oneline err && clean none || return 1; }
        [ ! -e w/hessian/0/attn.safetensors ] ||
            cmp plan/hessian/0/attn.safetensors w/hessian/0/attn.safetensors || return 1
        llmc-hessian -C w --keep <x >out && cmp tasks out &&
            cmp plan/hessian/0/attn.safetensors w/hessian/0/attn.safetensors || return 1
        n=$((n + 1))
    done
    [ "$rc" -eq 0 ] && [ "$n" -gt 1 ]
}

ok 'llmc-hessian: the disk is full at any write' 'hessian write ENOSPC 74'
ok 'llmc-hessian: any sync fails' 'hessian fsync EIO 74'
ok 'llmc-hessian: a rename fails' 'hessian rename EIO 74'
ok 'llmc-hessian: a file cannot be created' 'hessian create EACCES 73'
ok 'llmc-hessian: killed before any call' 'hessian any KILL 137'

done_testing
