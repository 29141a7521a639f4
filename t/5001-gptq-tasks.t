#!/bin/sh
# llmc-gptq: which tasks it takes, from where, and what it says of the others
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

ids 64 4 >ids
llmc-shard -C plan -m "$demo" -s W4A16 -g 32 -d ids -q
q=model.layers.2.self_attn.q_proj

new() {
    rm -rf w && cp -a plan w
}

made() {    # names of the files that are no links, one a line
    (cd w/weights && find . -type f | sed 's,^[.]/,,; s,[.]safetensors$,,' | sort)
}

# --- dry runs ---

new
ok 'a dry run prints every task' '
    llmc-gptq -C w --dry-run >out 2>err
    [ ! -s err ]
    [ -z "$(made)" ]
    cut -f 1,2 out >got
    sed "1d; s/\t.*/\tW4A16/" w/tasks.tsv >want
    cmp want got
'
ok 'or those that match' '
    llmc-gptq -C w -n -m "*.1.mlp.*" >out
    cut -f 1 out
    [ "$(wc -l <out)" -eq 3 ]
'
ok 'llmc-calib prints its steps' '
    llmc-calib -C w -n >out
    [ "$(wc -l <out)" -eq 16 ]
    llmc-calib -C w -n -m "$q" >out
    printf "8\t2\t3\n" | cmp - out
'

# --- nothing to work with ---

fails 75 'without Hessians there is nothing to do yet' 'llmc-gptq -C w >out 2>err'
ok 'which is said in one line' 'oneline err && grep -q "28 modules have no Hessian yet" err && [ ! -s out ] && [ -z "$(made)" ]'
fails 75 'the same for one module' 'llmc-gptq -C w -m "$q" >out 2>err'
ok 'which is said in one line' 'oneline err && grep -q "1 module" err'
fails 75 'the same for llmc-pack' 'llmc-pack -C w -o out.d >out 2>err'
ok 'which makes nothing' 'oneline err && grep -q "28 modules are not compressed yet" err && [ ! -e out.d ]'

# --- one module through files ---

ok 'llmc-calib writes the inputs of one module' 'llmc-calib -C w -m "$q" >x 2>err; [ ! -s err ] && [ -s x ]'
ok 'llmc-hessian sums them' '
    llmc-hessian -C w <x >tasks
    for m in q k v; do printf "model.layers.2.self_attn.%s_proj\tw/hessian/8/attn.safetensors\n" $m; done | cmp - tasks
    [ -s w/hessian/8/attn.safetensors ]
'
ok 'llmc-gptq takes it from the directory' '
    llmc-gptq -C w -m "$q" >out 2>err
    [ ! -s err ]
    [ "$(made)" = "$q" ]
'
ok 'and prints task, scheme, loss, loss of plain rounding, damping, seconds' '
    cat out
    awk -F "\t" -v q="$q" "NR > 1 || NF != 6 || \$1 != q || \$2 != \"W4A16\" || !(\$3 > 0 && \$3 < \$4) || \$5 != 0.01 { exit 1 }" out
'
ok 'the file says under which plan it was made' '
    fp=$(sed -n "s/.*\"fingerprint\": *\"\([0-9a-f]*\)\".*/\1/p" w/plan.json)
    [ ${#fp} -eq 64 ]
    head -c 2000 "w/weights/$q.safetensors" | grep -aq "\"plan\":\"$fp\""
'
ok 'done, it is not done again' '
    cp -p "w/weights/$q.safetensors" one
    llmc-gptq -C w -m "$q" >out
    [ ! -s out ] && [ ! "w/weights/$q.safetensors" -nt one ]
'
ok 'unless it is asked for again, and then the same' '
    llmc-gptq -C w -m "$q" --again >out
    [ "$(wc -l <out)" -eq 1 ]
    cmp one "w/weights/$q.safetensors"
'
ok 'the task may come from stdin' '
    new
    mkdir away
    llmc-hessian -C w <x >tasks
    mv w/hessian/8/attn.safetensors away
    printf "%s\t%s\n" "$q" away/attn.safetensors | llmc-gptq -C w -m "$q" >out
    cmp one "w/weights/$q.safetensors"
'
fails 75 'the others wait' '
    new
    llmc-hessian -C w <x | llmc-gptq -C w >out 2>err
'
ok 'and are counted' 'oneline err && grep -q "25 modules have no Hessian yet" err && [ "$(made | wc -l)" -eq 3 ]'
ok 'alone or with others it gets the same bytes' 'cmp one "w/weights/$q.safetensors"'

# --- input that is wrong ---

refuses() { # code name pattern line-on-stdin
    new
    llmc-hessian -C w <x >tasks
    t_code=$1 t_pattern=$3 t_line=$4
    ok "$2" '
        rc=0
        printf "$t_line\n" | llmc-gptq -C w -m "$q" >out 2>err || rc=$?
        cat err
        echo "exit status $rc, want $t_code"
        [ "$rc" -eq "$t_code" ] && oneline err && grep -q "$t_pattern" err
    '
}

refuses 65 'a line that is no task' 'stdin: "nonsense" is not a task' nonsense
refuses 65 'a task that is none' '"nonsense" is not a task' 'nonsense\tw/hessian/8/attn.safetensors'
refuses 66 'a Hessian that is not there' 'nowhere' "$q\tnowhere"
llmc-calib -C w -s 3 >down && llmc-hessian -C w --keep <down >/dev/null && cp w/hessian/3/down.safetensors .
refuses 65 'a Hessian of another size' 'Hessian is 768 x 768 .*, weight has 256 columns' "$q\tdown.safetensors"
llmc-shard -C w2 -m "$demo" -s W4A16 -g 64 -d ids -q
llmc-calib -C w2 -s 0 | llmc-hessian -C w2 >/dev/null
refuses 65 'a Hessian of another plan' 'w2/hessian/0/attn.safetensors: made under another plan' \
    "$q\tw2/hessian/0/attn.safetensors"
head -c 5000 away/attn.safetensors >cut
refuses 65 'a Hessian that is cut' 'cut: ' "$q\tcut"
: >empty
refuses 65 'a Hessian that is empty' 'empty: ' "$q\tempty"

# --- llmc-hessian and streams that are wrong ---

stream() {  # code name pattern
    new
    t_code=$1 t_pattern=$3
    ok "$2" '
        rc=0
        llmc-hessian -C w <bad >out 2>err || rc=$?
        cat err
        echo "exit status $rc, want $t_code"
        [ "$rc" -eq "$t_code" ] && oneline err && grep -q "$t_pattern" err && clean none && [ -z "$(find w/hessian -type f)" ]
    '
}

head -c 3000 x >bad
stream 65 'a stream cut in a tensor' 'ends after'
head -c 60 x >bad
stream 65 'a stream cut in a header' 'ends after'
head -c 3 x >bad
stream 65 'a stream cut in a length' 'ends after'
llmc-calib -C w2 -s 0 >bad
stream 65 'a stream of another plan' 'another plan'
head -c 1000 /dev/zero >bad
stream 65 'zeros' 'header length is 0'
perl -e 'print chr(33 + ($_ * 7919) % 90) for 1 .. 9999' >bad
stream 65 'noise' 'header length'
perl -e '$/ = undef; $_ = <STDIN>; my $n = unpack "Q<"; print substr $_, 0, 8 + $n' <x >bad
stream 75 'a stream that ends inside a step' 'step 8'
{ cat bad; cat x; } >bad2 && mv bad2 bad
stream 65 'a step inside a step' 'step 8 begins inside step 8'
perl -e '$/ = undef; $_ = <STDIN>; my $n = unpack "Q<"; print substr $_, 8 + $n' <x >bad
stream 65 'a stream without its beginning' 'step'

# --- weights and inputs that are not finite ---

unfinite() {    # name pattern code tensor bytes
    rm -rf w nan && mkdir nan && model nan
    spoil nan "substr(\$data, \$h->{'$4'}{data_offsets}[0] + 1000 % 512, 2) = \"$5\""
    t_pattern=$2 t_code=$3
    ok "$1" '
        rc=0
        llmc run nan -s W4A16 -g 32 -d ids -C w -o nan.out -q >tasks 2>err || rc=$?
        cat err
        echo "exit status $rc, want $t_code"
        [ "$rc" -eq "$t_code" ] && grep -q "$t_pattern" err && [ ! -e nan.out ] && [ -z "$(find . -name "*.tmp.*")" ]
    '
    ok '  ... and the earlier modules are done' '[ "$(made | wc -l)" -ge 7 ]'
}

unfinite 'NaN in a weight' 'llmc-gptq: model.layers.1.self_attn.k_proj: weight has values that are not finite' 65 \
    model.layers.1.self_attn.k_proj.weight '\xc0\x7f'
ok '  ... in one line' 'oneline err'
unfinite 'infinity in a weight' 'llmc-gptq: model.layers.1.mlp.down_proj: weight has values that are not finite' 65 \
    model.layers.1.mlp.down_proj.weight '\x80\x7f'
ok '  ... in one line' 'oneline err'
unfinite 'NaN in a norm' 'llmc-hessian: .*step 4.*not finite' 76 model.layers.1.input_layernorm.weight '\xc0\x7f'

done_testing
