#!/bin/sh
# whole pipelines on the demo model: same bytes however they are run
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

ids 64 12 >ids
ids 128 16 "$demo/eval.jsonl" >eval
run="llmc run $demo -s W4A16 -g 32 -d ids -q"

ok 'the demo model is compressed' "
    $run -o one --threads 1 --keep >tasks
    [ \"\$(tail -n 1 tasks | cut -d ' ' -f 1-3)\" = '28 modules compressed,' ]
    [ \"\$(sed '\$d' tasks | wc -l)\" -eq 28 ]
"
ok 'every link became a file' '
    [ -z "$(find one.work -type l)" ]
    [ "$(find one.work/weights -type f | wc -l)" -eq 28 ]
    [ -z "$(find . -name "*.tmp.*")" ]
'
ok 'GPTQ loses less than plain rounding, in every module' "
    sed '\$d' tasks | awk -F '\t' '!(\$3 > 0 && \$3 < \$4) { print; bad = 1 } END { exit bad }'
"
ok 'no tensor is missing' '
    header() {
        perl -MJSON::PP -e "\$/ = undef; \$_ = <STDIN>; my \$h = decode_json(substr \$_, 8, unpack q(Q<));
            delete \$h->{__metadata__};
            print map { qq(\$_\t\$h->{\$_}{dtype}\t@{\$h->{\$_}{shape}}\n) } sort keys %\$h" <"$1"
    }
    header one/model.safetensors >got
    header "$demo/model.safetensors" | awk -F "\t" -v OFS="\t" "
        /_proj.weight\t/ {
            split(\$3, n, \" \"); m = \$1
            print m \"_packed\", \"I32\", n[1] \" \" n[2] / 8
            print m \"_scale\", \"BF16\", n[1] \" \" n[2] / 32
            print m \"_shape\", \"I64\", \"2\"
            next
        }
        1" | sort >want
    diff want got
'
ok 'nor any file' '
    { (cd "$demo" && ls); echo provenance.json; echo recipe.yaml; } | sort >want
    ls one | diff want -
    for f in tokenizer.json tokenizer_config.json generation_config.json; do
        cmp "$demo/$f" one/$f
    done
'
ok 'scales weighed by the Hessian are the default of GPTQ, also in the config; minmax is on request' "
    $run -o mm --observer minmax >/dev/null
    ! cmp -s one/model.safetensors mm/model.safetensors
    grep -q '\"observer\": \"imatrix_mse\"' one/config.json
    grep -q 'weight_observer: imatrix_mse' one/recipe.yaml
    grep -q '\"observer\": \"minmax\"' mm/config.json
"
ok 'plain rounding can have them too, and without data' "
    llmc run $demo -s W4A16 -g 32 -a rtn -q -o rtn >/dev/null
    grep -q '\"observer\": \"memoryless_minmax\"' rtn/config.json
    llmc run $demo -s W4A16 -g 32 -a rtn --observer mse -q -o rtn-mse >/dev/null
    $run -a rtn --observer imatrix_mse -o rtn-im >tasks.im
    [ \"\$(sed '\$d' tasks.im | wc -l)\" -eq 28 ]
    for m in rtn rtn-mse rtn-im one; do llmc-eval -q -m \$m -d eval -l 128 | cut -f 2; done >ppl
    sort -rn ppl | diff ppl -
"
fails 64 'but not without data when they need it' "
    llmc run $demo -s W4A16 -g 32 -a rtn --observer imatrix_mse -q -o none 2>err; rc=\$?
    oneline err; exit \$rc
"
ok 'config.json says what was done' '
    tr -d " \n" <one/config.json >c
    for w in "\"quant_method\":\"compressed-tensors\"" "\"format\":\"pack-quantized\"" "\"group_size\":32" "\"num_bits\":4" \
        "\"ignore\":\[\"lm_head\"\]" "\"targets\":\[\"Linear\"\]"; do
        grep -q "$w" c || { echo "no $w in:"; cat c; exit 1; }
    done
'
ok 'the compressed model is refused as a source' '
    rc=0
    llmc run one -s W4A16 -d ids -o twice 2>err || rc=$?
    cat err
    [ "$rc" -eq 65 ]
    oneline err
    grep -q "compressed already" err
    [ ! -e twice ]
    [ ! -e twice.work ]
'

# --- same bytes ---

for n in 2 3; do
    ok "$n threads" "$run -o threads$n --threads $n -C w$n >/dev/null"
    same '  ... make the same weights' one/model.safetensors threads$n/model.safetensors
    same '  ... and provenance' one/provenance.json threads$n/provenance.json
    ok '  ... and the same task files' "weights one.work >a; weights w$n >b; diff a b"
done
ok 'and the default number' "$run -o default >/dev/null"
same '  ... make the same weights' one/model.safetensors default/model.safetensors
ok 'the reference backend comes to the same losses' '
    llmc-shard -C ref -m "$demo" -s W4A16 -g 32 -d ids -q
    llmc-calib -C ref --backend ref -s 0 | llmc-hessian -C ref --backend ref >t
    llmc-gptq -C ref --backend ref -m "*.0.self_attn.[qkv]*" <t >out
    [ "$(wc -l <out)" -eq 3 ]
    head -n 3 tasks | paste - out |
        awk -F "\t" "{ print; if (\$1 != \$7 || (\$3 / \$9 - 1) ^ 2 > 1e-6 || (\$4 / \$10 - 1) ^ 2 > 1e-6) bad = 1 } END { exit bad }"
'
ok 'stages one by one through files' '
    llmc-shard -C steps -m "$demo" -s W4A16 -g 32 -d ids -q
    for s in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        llmc-calib -C steps -s $s >x
        llmc-hessian -C steps --keep <x >t
        llmc-gptq -C steps <t >out 2>err || [ $? -eq 75 ]
    done
    weights one.work >a
    weights steps >b
    diff a b
'
ok '  ... leave the Hessians with --keep, also the same' '
    [ "$(find steps/hessian -type f | wc -l)" -eq 16 ]
    (cd one.work/hessian && find . -type f -exec sha256sum {} +) | sort >a
    (cd steps/hessian && find . -type f -exec sha256sum {} +) | sort >b
    diff a b
'
ok 'llmc-gptq alone makes them again from the Hessians' '
    llmc-gptq -C steps --again >out
    [ "$(wc -l <out)" -eq 28 ]
    weights steps >b
    weights one.work >a
    diff a b
'
ok 'saved states change nothing' '
    llmc-shard -C states -m "$demo" -s W4A16 -g 32 -d ids -q
    llmc-calib -C states --state-seconds 0 | llmc-hessian -C states | llmc-gptq -C states >out
    [ "$(find states/state -type f | wc -l)" -eq 1 ]
    weights one.work >a
    weights states >b
    diff a b
'

# --- again ---

ok 'the same command goes on where nothing is left to do' "
    $run -o kept -C kw >first
    find kw/weights kw/plan.json kw/tokens -printf '%p %i %T@\n' | sort >before
    rm -r kept
    $run -o kept -C kw >second 2>err
    cat second err
    [ ! -s err ]
    [ \"\$(wc -l <second)\" -eq 1 ]
    grep -q '^28 modules compressed' second
    find kw/weights kw/plan.json kw/tokens -printf '%p %i %T@\n' | sort >after
    cmp before after
    cmp one/model.safetensors kept/model.safetensors
"
ok 'each stage alone has nothing to do' '
    llmc-calib -C kw >x 2>err
    llmc-hessian -C kw <x >t 2>>err
    llmc-gptq -C kw <t >out 2>>err
    cat err
    [ ! -s err ]
    [ ! -s x ]
    [ ! -s t ]
    [ ! -s out ]
'
fails 73 'and the finished output is refused, by name' "$run -o kept -C kw 2>err"
ok '  ... in one line' 'oneline err && grep -q "kept: exists already" err'
ok '  ... and left alone' 'cmp one/model.safetensors kept/model.safetensors'
ok 'without -C and --keep the work directory goes' '[ -e default/model.safetensors ] && [ ! -e default.work ]'

# --- other settings ---

ok 'the model itself has a perplexity' '
    llmc-eval -m "$demo" -d eval -l 128 >plain
    cat plain
    [ "$(wc -l <plain)" -eq 1 ]
    awk -F "\t" "!(NF == 4 && \$2 > 25 && \$2 < 50 && \$4 == 2032) { exit 1 }" plain
'
ok 'its compressed copy has one a little worse' '
    llmc-eval -m one -d eval -l 128 >small
    cat plain small
    paste plain small | awk -F "\t" "{ exit !(\$6 > \$2 && \$6 < 1.05 * \$2) }"
'
near() {    # model: perplexity by real text is about that of the plain one
    llmc-eval -m "$1" -d eval -l 128 >e
    cat plain e
    paste plain e | awk -F '\t' '{ exit !($6 > 0.98 * $2 && $6 < 1.05 * $2 && $8 == 2032) }'
}

finish() {  # name options
    ok "$1" "
        rm -rf o o.work
        $run $2 -o o --keep >tasks
        grep -q '^28 modules compressed' tasks
        [ -z \"\$(find o.work -type l)\" ]
        [ -z \"\$(find . -name '*.tmp.*')\" ]
    "
    ok '  ... and is no worse than it should be' 'near o'
}

finish 'layer by layer' '--sequential layer'
ok '  ... with other weights' 'if cmp -s o/model.safetensors one/model.safetensors; then exit 1; fi'
finish 'all at once' '--sequential none'
finish 'one scale a row' '-g -1'
finish 'plain rounding' '-a rtn'
mv o rtn
finish 'groups of 128' '-g 128'
finish 'groups that are wider than some rows' '-g 768'
finish 'blocks of a sample' '--length 64 --samples 5'
ok 'plain rounding needs no data' '
    llmc run "$demo" -s W4A16 -g 32 -a rtn -o nodata -q >out
    cmp rtn/model.safetensors nodata/model.safetensors
'
for s in W8A16 W4A16_ASYM W8A8 W4A8 FP8_DYNAMIC NVFP4A16 MXFP4; do
    ok "$s" "rm -rf o o.work; llmc run $demo -s $s -d ids -o o -q >out; near o"
done

# --- llmc-eval ---

bad_eval() {    # code name pattern options
    t_code=$1 t_pattern=$3 t_script="llmc-eval $4"
    ok "llmc-eval: $2" '
        rc=0
        (eval "$t_script") >out 2>err || rc=$?
        cat err
        echo "exit status $rc, want $t_code"
        [ "$rc" -eq "$t_code" ] && oneline err && grep -q "$t_pattern" err && [ ! -s out ]
    '
}

bad_eval 66 'no model' 'nowhere' '-m nowhere -d eval'
bad_eval 66 'no data' 'nowhere' '-m one -d nowhere'
: >empty
bad_eval 65 'no tokens' 'empty: 0 tokens' '-m one -d empty'
bad_eval 65 'too few tokens' '2048 tokens, not enough for a window of 4096' '-m one -d eval -l 4096'
echo '{"input_ids": [1, 2, 9999]}' >odd
bad_eval 65 'a token outside the vocabulary' '9999' '-m one -d odd -l 3'
ok 'llmc-eval --each prints every window' '
    llmc-eval -m one -d eval -l 128 --each >out
    [ "$(wc -l <out)" -eq 17 ]
'
ok 'llmc-eval gives the same numbers for every number of threads' '
    llmc-eval -m one -d eval -l 128 -j 1 >a
    llmc-eval -m one -d eval -l 128 -j 3 >b
    cmp a b
'
fails 74 'llmc-eval: stdout is full' 'llmc-eval -m one -d eval -l 128 >/dev/full 2>err'
ok '  ... which is said' 'oneline err'
fails 74 'llmc-eval --dump: the disk is full' 'llmc-eval -m one -d eval -l 128 --dump /dev/full 2>err'
ok '  ... which is said' 'oneline err && grep -q "/dev/full: .*No space left" err'
ok 'llmc-eval --dump writes what leaves each layer' '
    llmc-eval -m one -d eval -l 128 --dump hidden
    [ "$(wc -c <hidden)" -gt $((5 * 128 * 256 * 4)) ]
'

done_testing
