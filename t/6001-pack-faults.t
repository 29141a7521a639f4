#!/bin/sh
# llmc-pack: the output is whole or not there, whatever fails
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

short small
cp "$demo/tokenizer.json" "$demo/generation_config.json" small
llmc run small -s W4A16 -g 32 -a rtn -C w -o good -q >/dev/null

ok 'there is a checkpoint' '[ -s good/model.safetensors ]'
ok 'with the side files of the model' '
    cmp small/tokenizer.json good/tokenizer.json
    cmp small/generation_config.json good/generation_config.json
'
ok 'and their digests' '
    (cd good && grep -o "\"[A-Za-z_.]*\": \"[0-9a-f]\{64\}\"" provenance.json | sed "s/\"\(.*\)\": \"\(.*\)\"/\2  \1/" >../sums)
    sed -n "/  model.safetensors/p" sums | sort -u >two
    [ "$(wc -l <two)" -eq 2 ]
    for f in model.safetensors config.json recipe.yaml tokenizer.json generation_config.json; do
        (cd good && sha256sum $f) | sed "s/  */  /" >one
        grep -Fxq -f one sums || { echo "no digest of $f"; cat one sums; exit 1; }
    done
'
ok 'packed again it is the same' 'llmc-pack -C w -o again -q; diff -r good again; rm -r again'

# --- outputs that exist or cannot be made ---

refuse() {  # code name pattern script
    t_code=$1 t_pattern=$3 t_script=$4
    ok "$2" '
        rc=0
        (eval "$t_script") 2>err || rc=$?
        cat err
        echo "exit status $rc, want $t_code"
        [ "$rc" -eq "$t_code" ] && oneline err && grep -q "$t_pattern" err && clean none
    '
}

mkdir full && echo mine >full/file
refuse 73 'an output that exists' 'full: exists already' 'llmc-pack -C w -o full'
ok '  ... is not touched' '[ "$(ls full)" = file ] && [ "$(cat full/file)" = mine ]'
refuse 73 'for llmc run, too' 'full: exists already' 'llmc run small -s W4A16 -a rtn -o full'
ok '  ... before any work' '[ ! -e full.work ] && [ "$(ls full)" = file ]'
refuse 73 'an output that is a file' 'sums: ' 'llmc-pack -C w -o sums'
ok '  ... is not touched' '[ -s sums ] && [ -f sums ]'
refuse 73 'a file where a directory should be' 'sums' 'llmc-pack -C w -o sums/out'
refuse 73 'a file system that takes no directories' '/proc/' 'llmc-pack -C w -o /proc/out'
ok 'an empty directory will do' 'mkdir none.yet; llmc-pack -C w -o none.yet -q; diff -r good none.yet; rm -r none.yet'
ok 'and a slash behind it' 'llmc-pack -C w -o slash/ -q; diff -r good slash; rm -r slash'
ok 'and directories above it are made' 'llmc-pack -C w -o a/b/c -q; diff -r good a/b/c'
fails 74 'stdout is full' 'llmc-pack -C w -o out -q >/dev/full 2>err'
ok '  ... which is said' 'oneline err && grep -q "No space left" err; rm -rf out'

# --- replacing ---

ok 'with --force an output is replaced' '
    cp -a good old
    echo >>old/config.json
    llmc-pack -C w -o old -f -q
    diff -r good old
'
refuse 73 'but not a directory of something else' 'full' 'llmc-pack -C w -o full -f'
ok '  ... which is not touched' '[ "$(ls full)" = file ] && [ "$(cat full/file)" = mine ]'
ok 'if it fails the old output stays' '
    echo >>old/config.json
    cp -a old copy
    rc=0
    faulty "write:3:ENOSPC:*old.tmp*" llmc-pack -C w -o old -f 2>err || rc=$?
    cat err
    [ "$rc" -eq 74 ]
    clean none
    diff -r copy old
'
ok 'killed at any moment either the old or the new one is there' '
    n=1
    while :; do
        rm -rf old old.tmp.* struck
        cp -a copy old
        LLMC_FAIL_LOG=struck faulty "any:$n:KILL:*" llmc-pack -C w -o old -f -q >txt 2>err || [ $? -eq 137 ]
        [ -s struck ] || break
        diff -r copy old >diffs || diff -r good old
        n=$((n + 11))
    done
    diff -r good old
    [ "$n" -gt 40 ]
    rm -rf old.tmp.*
'

# --- the Nth call fails ---

each() {    # op errno exit-status pattern [step [calls that matter: those after only read what was written]]
    n=1
    while :; do
        rm -rf out out.tmp.* struck
        rc=0
        LLMC_FAIL_LOG=struck faulty "$1:$n:$2:$4" llmc-pack -C w -o out -q >txt 2>err || rc=$?
        [ -s struck ] && [ "$n" -le "${6:-$n}" ] || break
        echo "$(cat struck): exit status $rc, want $3; $(cat err)"
        [ "$rc" -eq "$3" ] || return 1
        if [ "$2" = KILL ]; then
            [ ! -e out ] || diff -r good out || return 1
            rm -rf out
        else
            oneline err && clean none && [ ! -e out ] || return 1
        fi
        llmc-pack -C w -o out -q >txt && diff -r good out || return 1
        n=$((n + ${5:-1}))
    done
    [ "$rc" -eq 0 ] && [ "$n" -gt 1 ] && diff -r good out
}

ok 'the disk is full at any write' 'each write ENOSPC 74 "*out.tmp*" 5'
ok 'any write fails' 'each write EIO 74 "*out.tmp*" 7'
ok 'any sync fails' 'each fsync EIO 74 "*"'
ok 'any file cannot be closed' 'each close EIO 74 "*out.tmp*/*" 1 "$(ls good | wc -l)"'
ok 'any file cannot be created' 'each create EACCES 73 "*out.tmp*"'
ok 'a file cannot be renamed' 'each rename EIO 74 "*out.tmp*/*"'
ok 'the output cannot be renamed' 'each rename EIO 73 "out"'
ok 'killed before any write' 'each write KILL 137 "*" 6'
ok 'killed before any sync' 'each fsync KILL 137 "*"'
ok 'killed before any file is made' 'each create KILL 137 "*"'
ok 'killed before the rename' 'each rename KILL 137 "*"'
ok 'any write is short' '
    for n in 1 2 5 20 40; do
        rm -rf out
        faulty "write:$n:SHORT:*out.tmp*" llmc-pack -C w -o out -q
        diff -r good out
    done
'

ok 'ended by a signal it leaves nothing' '
    for s in TERM HUP; do
        for t in 0.004 0.008 0.012 0.016 0.02; do
            rm -rf out out.tmp.*
            llmc-pack -C w -o out -q >txt 2>err &
            pid=$!
            sleep $t
            kill -$s $pid 2>/dev/null || :
            wait $pid || :
            clean none
        done
    done
'

rm -rf out.tmp.*

# --- work directories that are not whole ---

refused_by_pack() { # code name pattern script that spoils v
    rm -rf v && cp -a w v && (eval "$4")
    refuse "$1" "$2" "$3" 'llmc-pack -C v -o out2'
    ok '  ... and makes nothing' '[ ! -e out2 ]'
}

f=v/weights/model.layers.1.mlp.up_proj.safetensors
refused_by_pack 65 'a task file that is cut' "$f: " 'head -c 5000 w${f#v} >$f'
refused_by_pack 65 'a task file that is empty' "$f: " ': >$f'
refused_by_pack 75 'a task file that is gone' '1 module' 'rm $f'
refused_by_pack 75 'a link in its place' '1 module' 'ln -sf "$PWD/small/model.safetensors" $f'
refused_by_pack 65 'a task file of another module' 'up_proj' 'cp ${f%up_proj*}gate_proj.safetensors $f'
refused_by_pack 65 'a task file of another plan' 'another plan' '
    llmc-shard -C u -m small -s W4A16 -g 64 -a rtn -q
    llmc-gptq -C u -q >/dev/null </dev/null
    cp u${f#v} $f'

done_testing
