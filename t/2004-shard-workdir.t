#!/bin/sh
# the work directory: made whole or not at all, found again, and never used for something else
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

ids 32 6 >ids
opts='-s W4A16 -g 32 -d ids --block-tokens 96 -q'
shard="llmc-shard -m $demo $opts"

ok 'a plan is made' "$shard -C good"
ok 'a link stands for each module' '
    [ "$(find good/weights -type l | wc -l)" -eq 28 ]
    for l in good/weights/*; do [ "$(readlink -f "$l")" = "$(realpath "$demo/model.safetensors")" ] || exit 1; done
'
ok 'made again it is left alone' "
    find good -printf '%p %i %T@ %l\n' | sort >before
    $shard -C good
    find good -printf '%p %i %T@ %l\n' | sort >after
    cmp before after
"
ok 'the plan is the same in another directory' "
    $shard -C other
    for f in plan.json steps.tsv tasks.tsv blocks.tsv tokens/0.safetensors tokens/1.safetensors; do
        cmp good/\$f other/\$f || exit 1
    done
"
ok 'directories above it are made' "$shard -C a/b/c && [ -s a/b/c/plan.json ]"

# --- places that cannot be written ---

refused 73 'a file where a directory should be' 'ids: cannot create' "$shard -C ids/w"
refused 73 'a file where the directory should be' 'ids: cannot create' "$shard -C ids"
refused 73 'a file system that takes no directories' '/proc/' "$shard -C /proc/w"
if [ "$(id -u)" -ne 0 ]; then
    mkdir shut && chmod 555 shut
    refused 73 'a directory that may not be written' 'shut' "$shard -C shut/w"
else
    skip 'a directory that may not be written' 'root may write it'
fi
fails 74 'a full device for --plan' "llmc-shard -m $demo -s W4A16 --plan >/dev/full 2>err"
ok 'and says so' 'oneline err'

# --- the Nth call fails ---

same_plan() {
    for f in plan.json steps.tsv tasks.tsv blocks.tsv tokens/0.safetensors tokens/1.safetensors; do
        cmp "good/$f" "w/$f" || return 1
    done
    [ "$(find w/weights -type l | wc -l)" -eq 28 ]
}

# Fails there and leaves no plan (or, when only the directory could not be synced behind plan.json, a whole one), and
# the next run makes the same one.
each() {    # op errno exit-status
    n=1
    while :; do
        rm -rf w struck
        rc=0
        LLMC_FAIL_LOG=struck faulty "$1:$n:$2" $shard -C w 2>err || rc=$?
        [ -s struck ] || break
        echo "$(cat struck): exit status $rc, want $3; $(cat err)"
        [ "$rc" -eq "$3" ] || return 1
        [ "$2" = KILL ] || { oneline err && { clean w || { [ "$1" = fsync ] && same_plan; }; } || return 1; }
        $shard -C w && same_plan || return 1
        n=$((n + 1))
    done
    [ "$rc" -eq 0 ] && [ "$n" -gt 3 ] && same_plan
}

ok 'the disk is full at any write' 'each write ENOSPC 74'
ok 'any sync fails' 'each fsync EIO 74'
ok 'any rename fails' 'each rename EIO 74'
ok 'any file cannot be created' 'each create EACCES 73'
ok 'killed before any call' 'each any KILL 137'
ok 'any write is short' '
    n=1
    while :; do
        rm -rf w struck
        LLMC_FAIL_LOG=struck faulty "write:$n:SHORT" $shard -C w || exit 1
        same_plan || exit 1
        [ -s struck ] || break
        n=$((n + 1))
    done
'

# --- a directory that was made from something else ---

kept() {    # name pattern shard-options ...
    t_opts=$3
    ok "$1" '
        rm -rf w
        cp -a good w
        rc=0
        (eval "llmc-shard -C w -q $t_opts") 2>err || rc=$?
        cat err
        [ "$rc" -eq 65 ] && oneline err && same_plan
    '
    t_pattern="^llmc-shard: w: was made with another $2"
    ok '  ... and says of what' 'cat err; grep -q "$t_pattern" err'
}

model other-model
spoil other-model 'substr($data, 1000, 1) ^= "\1"'
sed 's/9/8/' ids >other-ids
sed 5q ids >fewer
printf 'a_stage:\n  b_modifiers:\n    GPTQModifier:\n      scheme: W4A16\n      ignore: [lm_head]\n' >r.yaml

kept 'another model' 'model' "-m other-model $opts"
kept 'other data' 'calibration data' "-m $demo -s W4A16 -g 32 -d other-ids --block-tokens 96"
kept 'less data' 'calibration data' "-m $demo -s W4A16 -g 32 -d fewer --block-tokens 96"
kept 'fewer samples' 'calibration data' "-m $demo $opts -n 5"
kept 'shorter samples' 'calibration data' "-m $demo $opts -l 16"
kept 'another group size' 'recipe' "-m $demo $opts -g 64"
kept 'another scheme' 'recipe' "-m $demo -s W8A16 -d ids --block-tokens 96"
kept 'a recipe file' 'recipe' "-m $demo -r r.yaml -d ids --block-tokens 96"
kept 'another order' '--sequential' "-m $demo $opts --sequential layer"
kept 'other blocks' '--block-tokens' "-m $demo $opts --block-tokens 97"

ok 'the same data under another name are the same' "
    cp ids same-ids
    llmc-shard -C good -q -m $demo -s W4A16 -g 32 -d same-ids --block-tokens 96
"

# Later stages look at the model, not only at its name.
model moved
ok 'a plan is made from a copy' "llmc-shard -m moved $opts -C m"
ok 'of which a byte changes' 'spoil moved "substr(\$data, 1000, 1) ^= chr(1)"'
for s in 'calib' 'hessian' 'gptq' 'pack -o out'; do
    fails 65 "llmc-$s refuses it then" "llmc-$s -C m >x 2>err"
    ok '  ... and says why' 'oneline err && grep -q "moved: not the model" err && [ ! -e out ]'
done
model moved
ok 'it is as it was, but written anew' 'cmp moved/model.safetensors "$demo/model.safetensors"'
for s in 'calib' 'hessian' 'gptq' 'pack -o out' "shard -m moved $opts"; do
    fails 65 "llmc-${s%% *} refuses that, too" "llmc-$s -C m >x 2>err"
    ok '  ... and says why' 'oneline err && grep -q "moved/model.safetensors: changed since .* llmc-shard --relink" err'
done
ok 'until it is told that it is the same' 'llmc-shard -C m --relink && llmc-shard -m moved $opts -C m && llmc-gptq -C m --dry-run </dev/null >x'
rm -r moved
fails 66 'a model that is gone' 'llmc-gptq -C m </dev/null 2>err'
ok '  ... is named' 'oneline err && grep -q "/moved" err'

# --- plans that were changed by hand or cut ---

damaged() { # name pattern script
    rm -rf w && cp -a good w && (eval "$3")
    for s in 'calib' 'gptq' 'pack -o out'; do
        t_stage=$s t_pattern=$2
        ok "llmc-${s%% *}: $1" '
            rc=0
            llmc-$t_stage -C w </dev/null >out.txt 2>err || rc=$?
            cat err
            echo "exit status $rc"
            [ "$rc" -eq 65 ] && oneline err && grep -Eq "$t_pattern" err && [ ! -e out ]
        '
    done
}

damaged 'a setting is changed' 'plan.json: .*fingerprint' \
    "sed 's/\"block_tokens\": 96/\"block_tokens\": 95/' good/plan.json >w/plan.json"
damaged 'the algorithm is another version' 'plan.json: algorithm version 1 made this work directory, this program is' \
    "sed 's/\"algorithm\": [0-9]*/\"algorithm\": 1/' good/plan.json >w/plan.json"
damaged 'plan.json is cut' 'plan.json: ' 'head -c 300 good/plan.json >w/plan.json'
damaged 'plan.json is empty' 'plan.json: ' ': >w/plan.json'
damaged 'tasks.tsv is cut' 'tasks.tsv: ' 'head -c 1000 good/tasks.tsv >w/tasks.tsv'
damaged 'a task leaves the directory' 'tasks.tsv line 3: ' "sed '3s,^,../../,' good/tasks.tsv >w/tasks.tsv"
damaged 'a task has too many rows' 'tasks.tsv line 4: ' \
    "awk -F '\t' -v OFS='\t' 'NR == 4 { \$6 = 999 } 1' good/tasks.tsv >w/tasks.tsv"
damaged 'a step is missing' '(steps|tasks).tsv line [0-9]+: ' "sed 4d good/steps.tsv >w/steps.tsv"
damaged 'a step is of no layer' 'steps.tsv line 2: ' "sed '2s/attn/nose/' good/steps.tsv >w/steps.tsv"

ok 'tokens that are not those of the plan' '
    rm -rf w && cp -a good w && cp w/tokens/1.safetensors w/tokens/0.safetensors
    rc=0
    llmc-calib -C w >x 2>err || rc=$?
    cat err
    [ "$rc" -eq 65 ] && oneline err && grep -q tokens/0.safetensors err
'

done_testing
