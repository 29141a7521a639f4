#!/bin/sh
# static scales of activations: beside LLM Compressor's, the same however they are collected, and what they are for
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

values() {
    perl "$data/mk/values.pl" "$@"
}

recipe() {  # FILE MODIFIER arguments
    printf 'quant_stage:\n  quant_modifiers:\n    %s: {%s}\n' "$2" "$3" >"$1"
}

linear='targets: [Linear], ignore: [lm_head]'
cache='kv_cache_scheme: {num_bits: 8, type: float, strategy: tensor}'
heads='kv_cache_scheme: {num_bits: 8, type: float, strategy: attn_head}'
recipe fp8.yaml QuantizationModifier "$linear, scheme: FP8, $cache"
recipe nvfp4.yaml QuantizationModifier "$linear, scheme: NVFP4, $heads"
recipe cache.yaml QuantizationModifier "$cache"
recipe gptq.yaml GPTQModifier "$linear, scheme: FP8, $cache"

# --- beside LLM Compressor, whose QuantizationModifier calibrates with the original weights throughout ---

# Tensors of MODEL by RECIPE within a relative TOLERANCE; the first layer's attention sees the same numbers, so that its
# scale is the same to the bit.
beside() {
    ok "$1, $2" "
        llmc run '$data/tiny/$1' -r $2.yaml -d '$data/tiny/$1.jsonl' --sequential none -C w-$1-$2 -o $1-$2 -q >out
        values $1-$2/model.safetensors '(input|input_global|k|v)_scale\$' | cut -f 1,4 >got
        grep '^$1	$2	' '$data/scales.tsv' | cut -f 3,4 >want
        [ \"\$(wc -l <want)\" -ge 6 ]
        cut -f 1 want >a
        cut -f 1 got | diff a -
        paste want got | awk -F '\t' -v tol=$3 '{
            n = split(\$2, a, \" \"); m = split(\$4, b, \" \"); bad += n != m
            for (i = 1; i <= n; i++) {
                e = a[i] / b[i] - 1
                limit = \$1 ~ /layers[.]0[.]self_attn[.]q_proj/ ? 1e-7 : tol
                if (e * e > limit * limit) { print; bad++ }
            }
        } END { exit bad > 0 }'
    "
}

for r in fp8 nvfp4 cache; do
    beside f32 $r 2e-5
    beside bias $r 0.02     # bf16: some sums round the other way
done
ok 'types and shapes are those that loaders want' '
    {
        values bias-fp8/model.safetensors "layers.1.*(input|k|v)_scale$"
        values bias-nvfp4/model.safetensors "layers.1.*(q_proj.input_global|k|v)_scale$"
        values f32-cache/model.safetensors "layers.1.*[kv]_scale$"
    } | cut -f 1-3 | sort | uniq >got
    cat >want <<-"E"
	model.layers.1.mlp.down_proj.input_scale	BF16	1
	model.layers.1.mlp.gate_proj.input_scale	BF16	1
	model.layers.1.mlp.up_proj.input_scale	BF16	1
	model.layers.1.self_attn.k_proj.input_scale	BF16	1
	model.layers.1.self_attn.k_scale	BF16	1
	model.layers.1.self_attn.k_scale	BF16	2 1 1
	model.layers.1.self_attn.k_scale	F32	1
	model.layers.1.self_attn.o_proj.input_scale	BF16	1
	model.layers.1.self_attn.q_proj.input_global_scale	F32	1
	model.layers.1.self_attn.q_proj.input_scale	BF16	1
	model.layers.1.self_attn.v_proj.input_scale	BF16	1
	model.layers.1.self_attn.v_scale	BF16	1
	model.layers.1.self_attn.v_scale	BF16	2 1 1
	model.layers.1.self_attn.v_scale	F32	1
	E
    diff want got
'
ok 'q, k and v, gate and up, have one input and one scale' '
    for s in input_scale:fp8 input_global_scale:nvfp4; do
        values bias-${s#*:}/model.safetensors "([qkv]|gate|up)_proj.${s%:*}$" |
            awk -F "\t" "{ sub(/[^.]*[.][^.]*$/, \"\", \$1); n[\$1 \$4]++; all++ }
                END { for (k in n) if (n[k] != (k ~ /attn/ ? 3 : 2)) bad = 1; exit bad || all != 15 }"
    done
'
ok 'config.json says what was done' '
    tr -d " \n" <f32-cache/config.json >c
    grep -q "\"config_groups\":{},\"format\":\"dense\",\"global_compression_ratio\":null,\"ignore\":\[\]" c
    grep -q "\"kv_cache_scheme\":{[^}]*\"num_bits\":8,\"observer\":\"static_minmax\"" c
    tr -d " \n" <bias-nvfp4/config.json >c
    grep -q "\"dynamic\":\"local\"[^}]*\"observer\":\"static_minmax\"" c
    grep -q "\"kv_cache_scheme\":{.*\"strategy\":\"attn_head\"" c
'
ok 'weights are left alone where the recipe compresses none' '
    values f32-cache/model.safetensors "layers.*weight$" >a
    values "$data/tiny/f32/model.safetensors" "layers.*weight$" >b
    cmp a b
'

# --- llmc-eval rounds activations as transformers with compressed-tensors does ---

# A symmetric int scale puts the largest value on a tie (127.5 steps), so that the last bit of a sum decides a code. In
# other schemes it may as well, with another processor's order of sums, but seldom: by less than 1/200 of what rounding does.
t_tab=$(printf '\t')
while IFS=$t_tab read -r t_a t_b t_c t_d t_args; do
    case $t_args in
    *W8A8*) t_tol=0.02 ;;
    *) t_tol=0.0002 ;;
    esac
    recipe r.yaml QuantizationModifier "$t_args"
    ok "llmc-eval, $t_args" "
        rm -rf o o.work
        llmc run '$data/tiny/f32' -r r.yaml -d '$data/tiny/f32.jsonl' --sequential input -o o -q >out
        { echo $t_a; echo $t_b; echo $t_c; echo $t_d; } >want
        llmc-eval -m o -d '$data/tiny/f32.jsonl' -l 48 --each | head -n 2 >got
        llmc-eval -m o -d '$data/tiny/f32.jsonl' -l 48 --each --weights-only | head -n 2 >>got
        { echo $t_c; echo $t_d; echo $t_c; echo $t_d; } >off
        paste want got off | awk -v least=$t_tol '{
            print
            d = \$1 - \$3
            tol = least + (\$1 > \$4 ? \$1 - \$4 : \$4 - \$1) / 200
            bad += !(d * d < tol * tol)
        } END { exit bad > 0 || NR != 4 }'
    "
done <"$data/rounded.tsv"
ok 'llmc-eval: the same bytes for every number of threads, near those of ref' '
    llmc-eval -m bias-nvfp4 -d "$data/tiny/bias.jsonl" -l 48 --dtype bfloat16 -j 1 >a
    llmc-eval -m bias-nvfp4 -d "$data/tiny/bias.jsonl" -l 48 --dtype bfloat16 -j 3 >b
    cmp a b
    llmc-eval -m f32-fp8 -d "$data/tiny/f32.jsonl" -l 48 --backend ref >a
    llmc-eval -m f32-fp8 -d "$data/tiny/f32.jsonl" -l 48 --backend cpu >b
    paste a b | awk -F "\t" "{ d = \$3 - \$7; exit !(d * d < 1e-4) }"
'

spoilt() {  # name pattern code of st.pl
    ok "llmc-eval: $1" "
        rm -rf spoilt
        cp -r bias-fp8 spoilt
        perl '$data/mk/st.pl' bias-fp8/model.safetensors spoilt/model.safetensors '$3'
        rc=0
        llmc-eval -m spoilt -d '$data/tiny/bias.jsonl' -l 48 >out 2>err || rc=\$?
        cat err
        [ \"\$rc\" -eq 65 ] && oneline err && grep -q '$2' err && [ ! -s out ]
        llmc-eval -m spoilt -d '$data/tiny/bias.jsonl' -l 48 --weights-only
    "
}
t_q=model.layers.1.self_attn.q_proj.input_scale t_k=model.layers.2.self_attn.k_scale
spoilt 'a scale of inputs that is missing' "no tensor $t_q" "\$h->{\"other\"} = delete \$h->{\"$t_q\"}"
spoilt 'a scale of inputs that is NaN' "$t_q is nan" \
    "substr(\$data, \$h->{\"$t_q\"}{data_offsets}[0], 2) = pack \"v\", 0x7fc0"
spoilt 'a scale of keys that is 0' "$t_k is 0" "substr(\$data, \$h->{\"$t_k\"}{data_offsets}[0], 2) = pack \"v\", 0"
spoilt 'a scale of keys of another shape' "$t_k is BF16 of 2 bytes\|BF16.*want" \
    "my \$o = \$h->{\"$t_k\"}; \$o->{dtype} = \"U8\"; \$o->{shape} = [2]"

# --- every sample counts, whoever saw it ---

ids 48 6 >ids
tac ids >back
short m
ok 'plain rounding with static inputs needs data' '
    rc=0
    llmc run m -s FP8 -a rtn -o none 2>err || rc=$?
    [ "$rc" -eq 64 ]
    oneline err
    grep -q "needs calibration data" err
'
ok '  ... but no products' '
    llmc run m -s FP8 -a rtn --observer minmax -d ids -C plain --keep -o p -q >out
    [ "$(wc -c <plain/hessian/0/attn.safetensors)" -lt 1000 ]
    values plain/hessian/0/attn.safetensors . | cut -f 1-3 >got
    printf "range\tF32\t1 2\n" | diff - got
'
ok 'the order of samples changes no scale' '
    llmc run m -s FP8 -a rtn -d back -o r -q >out
    cmp p/model.safetensors r/model.safetensors
'
ok 'nor do blocks and threads' '
    llmc-shard -C blocks -m m -s FP8 -a rtn -d ids -q --block-tokens 48
    llmc-calib -C blocks -j 3 | llmc-hessian -C blocks -j 2 | llmc-gptq -C blocks >out
    llmc-pack -C blocks -o bo >>out
    cmp p/model.safetensors bo/model.safetensors
'
ok 'fewer samples do' '
    head -n 1 ids >one; rm -rf o o.work
    llmc run m -s FP8 -a rtn -d one -o o -q >out
    if cmp -s p/model.safetensors o/model.safetensors; then exit 1; fi
    values p/model.safetensors "input_scale" | cut -f 4 >a
    values o/model.safetensors "input_scale" | cut -f 4 | paste a - |
        awk "{ if (\$2 > \$1 * 1.01) bad = 1; less += \$2 < \$1 } END { exit bad || less < 4 }"
'
ok 'parts of the samples, merged, are the whole' '
    head -n 3 ids >first
    tail -n 3 ids >last
    for p in first last; do
        llmc-shard -C $p-w -m m -r gptq.yaml --sequential none -d $p -q
        llmc-calib -C $p-w >x
        llmc-hessian -C $p-w --keep <x >t
    done
    llmc-shard -C all-w -m m -r gptq.yaml --sequential none -d ids -q
    llmc-calib -C all-w >x
    llmc-hessian -C all-w --keep <x >t
    for p in attn o mlp down; do
        for w in first last all; do values $w-w/hessian/1/$p.safetensors "^range$" | cut -f 4; done |
            awk "{ n = NF; for (i = 1; i <= n; i++) v[NR, i] = \$i }
                END { for (i = 1; i <= n; i++) {
                        m = v[1, i] > v[2, i] ? v[1, i] : v[2, i]
                        differ += v[1, i] != v[2, i]
                        if (m != v[3, i]) bad = 1 }
                    exit bad || !differ }"
    done
'

# --- GPTQ, a point at a time ---

ok 'GPTQ with static inputs and a quantised cache' '
    llmc run m -r gptq.yaml -d ids -C g --keep -o gq -q >tasks
    grep -q "^14 modules compressed" tasks
    [ "$(grep -c "	kv_cache	" tasks)" -eq 2 ]
    [ -z "$(find g -type l)" ]
'
ok '  ... the cache is what comes of the compressed weights' '
    values gq/model.safetensors "[kv]_scale" >a
    llmc run m -r gptq.yaml -d ids --sequential layer -o gl -q >out
    values gl/model.safetensors "[kv]_scale" >b
    [ "$(wc -l <a)" -eq 4 ]
    if cmp -s a b; then exit 1; fi
    paste a b | awk -F "\t" "{ e = \$4 / \$8 - 1; if (e * e > 0.04 ^ 2) exit 1 }"
'
ok '  ... saved states carry it' '
    for s in 0 1 2; do
        llmc-shard -C st -m m -r gptq.yaml -d ids -q
        llmc-calib -C st --state-seconds 0 -s $s >x
        llmc-hessian -C st --keep <x >t
        llmc-gptq -C st <t >out 2>err || [ $? -eq 75 ]
    done
    llmc-calib -C st --state-seconds 0 | llmc-hessian -C st | llmc-gptq -C st >out
    llmc-pack -C st -o sto >out
    cmp gq/model.safetensors sto/model.safetensors
'
ok '  ... a restart at point o begins with it' '
    rm -rf st
    llmc-shard -C st -m m -r gptq.yaml -d ids -q
    llmc-calib -C st -s 0 >x
    llmc-hessian -C st <x | llmc-gptq -C st -m "*.0.self_attn.[qkv]*" >out 2>err || [ $? -eq 75 ]
    llmc-calib -C st --state-seconds 0 -s 1 >x
    [ -e st/state/1/0.safetensors ] || [ -e st/state/2/0.safetensors ]
    llmc-calib -C st -m "*.0.self_attn" --again >x
    llmc-hessian -C st <x | llmc-gptq -C st -m "*.0.self_attn" --again >out 2>err || [ $? -eq 75 ]
    grep -q "	kv_cache	" out
    cmp g/weights/model.layers.0.self_attn.safetensors st/weights/model.layers.0.self_attn.safetensors
'
ok 'modules that are rounded without calibration are waited for, too' '
    recipe plain.yaml QuantizationModifier "$linear, scheme: W8A8, $cache"
    llmc-shard -C w1 -m m -r plain.yaml -d ids -q
    llmc-calib -C w1 | llmc-hessian -C w1 | { sleep 1; llmc-gptq -C w1; } >out
    llmc-shard -C w2 -m m -r plain.yaml -d ids -q
    llmc-gptq -C w2 >out 2>err || [ $? -eq 75 ]
    llmc-calib -C w2 | llmc-hessian -C w2 | llmc-gptq -C w2 >out
    weights w1 >a
    weights w2 >b
    diff a b
    if grep link a; then exit 1; fi
'
ok 'llmc-shard --plan lists the caches' '
    llmc-shard -m m -r gptq.yaml --plan >out
    [ "$(grep -c "^model.layers.[01].self_attn	\[2, [0-9]*\]	kv_cache$" out)" -eq 2 ]
'

done_testing
