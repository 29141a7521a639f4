#!/bin/sh
# llmc-pack --check: faults are found, each by its rule, and what is whole is clean
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

short small
cp "$demo/tokenizer.json" "$demo/tokenizer_config.json" "$demo/generation_config.json" small

# made NAME options...: a checkpoint of the small model
made() {
    t_out=$1
    shift
    llmc run small -a rtn -o "$t_out" -q "$@" >/dev/null
}

made w4 -s W4A16 -g 32
ok 'what llmc makes is clean' 'llmc-pack --check w4 --against small >out; [ ! -s out ]'
ok '  ... also against the model that its provenance names' 'llmc-pack --check w4 >out 2>err; [ ! -s out ]; [ ! -s err ]'

# fault RULE 'name' BASE SUBJECT 'script that spoils v': one finding, of that rule and subject
fault() {
    t_rule=$1 t_base_dir=$3 t_subject=$4 t_script=$5
    ok "$2" '
        rm -rf v && cp -a "$t_base_dir" v
        (set -e; eval "$t_script")
        rc=0
        llmc-pack --check v --against small >out 2>err || rc=$?
        cat out err
        echo "exit status $rc, want 1 and the one finding $t_subject $t_rule"
        [ "$rc" -eq 1 ] && [ "$(wc -l <out)" -eq 1 ]
        [ "$(cut -f 1,2 out)" = "$(printf "%s\t%s" "$t_subject" "$t_rule")" ]
    '
}

# weights CODE: changes v/model.safetensors, see st.pl
st() {
    perl "$data/mk/st.pl" v/model.safetensors v/new "$1" && mv v/new v/model.safetensors
}

q=model.layers.0.self_attn.q_proj
fault scale 'a scale that is NaN' w4 $q.weight_scale "st 'substr(\$data, \$h->{qq($q.weight_scale)}{data_offsets}[0], 2) = qq(\\xc0\\x7f)'"

done_testing
