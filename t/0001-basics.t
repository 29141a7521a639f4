#!/bin/sh
# --help, --version, misuse, and what llmc itself adds
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

stages='shard calib hessian gptq pack eval'

for s in $stages; do
    ok "llmc-$s --help is on stdout" "
        llmc-$s --help >out 2>err
        [ ! -s err ]
        head -n 1 out | grep -q '^usage: llmc-$s '
    "
    ok "llmc-$s --version has two lines" "
        llmc-$s --version >out 2>err
        [ ! -s err ]
        [ \"\$(wc -l <out)\" -eq 2 ]
        head -n 1 out | grep -Eq '^llmc-$s [0-9]+[.][0-9]+'
        tail -n 1 out | grep -q '^built with: backends: .*ref'
    "
    fails 64 "llmc-$s refuses an unknown option" "llmc-$s --nonesuch 2>err >out"
    ok 'by name, in one line, on stderr' 'oneline err && grep -q nonesuch err && [ ! -s out ]'
    fails 64 "llmc-$s refuses an operand" "llmc-$s nonesuch 2>err >out"
    ok 'by name too' 'oneline err && grep -q nonesuch err && [ ! -s out ]'
    fails 64 "llmc-$s refuses an option without its value" "llmc-$s -j 2>err >out || llmc-$s -m 2>err >out"
    ok 'in one line' 'oneline err'
    case $s in
    shard) o=-l ;;
    *) o=-j ;;
    esac
    fails 64 "llmc-$s refuses a value that is no number" "llmc-$s $o twelve 2>err"
    ok 'and says which' 'oneline err && grep -q twelve err'
    fails 64 "llmc-$s refuses a value out of range" "llmc-$s $o -5 2>err"
    ok 'and says what it wants' 'oneline err && grep -q "want" err'
done

fails 64 'llmc-shard wants a model' 'llmc-shard -s W4A16 2>err'
ok 'and says so' 'oneline err'
fails 64 'llmc-shard wants a scheme or a recipe' 'llmc-shard -m "$demo" 2>err'
ok 'and says so' 'oneline err'
fails 64 'but not both' 'llmc-shard -m "$demo" -s W4A16 -r x.yaml 2>err'
ok 'and says so' 'oneline err'
fails 64 'nor a group size with a recipe' 'llmc-shard -m "$demo" -r x.yaml -g 32 2>err'
ok 'and says so' 'oneline err'
fails 64 'a choice is checked' 'llmc-shard -m "$demo" -s W4A16 --sequential sideways 2>err'
ok 'and the choices are listed' 'oneline err && grep -q sideways err && grep -q "input.*layer.*none" err'
fails 64 'llmc-pack wants an output' 'llmc-pack 2>err'
ok 'and says so' 'oneline err'
fails 64 'llmc-eval wants model and data' 'llmc-eval -m "$demo" 2>err'
ok 'and says so' 'oneline err'

for s in calib hessian gptq 'pack -o made'; do
    fails 66 "llmc-$s without a work directory" "llmc-$s -C nowhere 2>err"
    ok 'is one line' 'oneline err && grep -q "nowhere/plan.json" err'
done
ok 'and nothing is made' '[ ! -e nowhere ] && [ ! -e made ]'

# --- llmc ---

ok 'llmc --help is on stdout' 'llmc --help >out 2>err; [ ! -s err ]; grep -q "^usage: llmc run" out'
ok 'llmc run --help, too' 'llmc run --help >out 2>err; [ ! -s err ]; grep -q "^usage: llmc run" out'
ok 'llmc --version' 'llmc --version >out 2>err; [ ! -s err ]; grep -Eq "^llmc[a-z-]* [0-9]+[.][0-9]+" out'
fails 64 'llmc alone is misuse' 'llmc >out 2>err'
ok 'and its usage goes to stderr' '[ ! -s out ] && grep -q "^usage:" err'
fails 64 'an unknown command' 'llmc nonesuch >out 2>err'
ok 'is named' 'oneline err && grep -q nonesuch err && [ ! -s out ]'
for a in "run" "run m" "run m -o" "run m -o o --nonesuch" "run m n -o o" "run m -o o --threads x"; do
    fails 64 "llmc $a" "llmc $a 2>err"
    ok 'is misuse in one line' 'oneline err'
done
for s in $stages; do
    ok "llmc $s is llmc-$s" "llmc $s --version >a; llmc-$s --version >b; cmp a b"
done

# --- --show ---

ids 64 4 >'the ids.jsonl'
ok '--show does nothing' '
    llmc run "$demo" -s W4A16 -g 32 -d "the ids.jsonl" -C "work one" -o hand --threads 2 -q --show >show
    [ ! -e "work one" ] && [ ! -e hand ]
'
ok 'its lines are the four stages and pack' '
    [ "$(wc -l <show)" -eq 3 ]
    grep -q "^llmc-shard .*the ids.jsonl" show
    grep -q "^llmc-calib .* | llmc-hessian .* | llmc-gptq " show
    grep -q "^llmc-pack .* -o hand" show
'
ok 'run by hand they compress' 'sh -e show'
ok 'and llmc run' 'llmc run "$demo" -s W4A16 -g 32 -d "the ids.jsonl" -o run --threads 2 -q'
same 'to the same weights' hand/model.safetensors run/model.safetensors
same 'and configuration' hand/config.json run/config.json
same 'and provenance' hand/provenance.json run/provenance.json
ok 'the work directory is gone' '[ ! -e run.work ]'
ok '--show of plain rounding is what it runs' '
    llmc run "$demo" -s W4A16 -g 32 -a rtn -o rtn --show >show
    sh -e show
    [ -s rtn/model.safetensors ]
'
ok 'long options may be joined to their values' '
    llmc run "$demo" --scheme=W4A16 --group=32 "--data=the ids.jsonl" --output=o --threads=3 --show >a
    llmc run "$demo" --scheme W4A16 --group 32 --data "the ids.jsonl" --output o --threads 3 --show >b
    cmp a b
'

done_testing
