#!/bin/sh
# llmc-pack --check: faults are found, each by its rule, and what is whole is clean; --dequantize
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

vectors=$golden/vectors
short small
cp "$demo/tokenizer.json" "$demo/tokenizer_config.json" "$demo/generation_config.json" small
ids 64 4 >ids

# made NAME option...: a checkpoint of the small model
made() {
    t_out=$1
    shift
    llmc run small -d ids -o "$t_out" -q "$@" >/dev/null
}

clean_check() { # DIR [option...]
    llmc-pack --check "$@" >out 2>err || echo "exit status $?"
    cat out err
    [ ! -s out ]
}

# --- what is whole ---

made w4 -s W4A16 -g 32 -a rtn -C w
made asym -s W4A16_ASYM -g 32 -a rtn
made w4a8 -s W4A8 -g 32 -a rtn
made fp8 -s FP8_DYNAMIC -a rtn
made nv -s NVFP4A16 -a rtn
made mx -s MXFP4A16 -a rtn
llmc-pack -C w -o shards --shard-size 300K -q
cat >zeros.yaml <<'Y'
quant_stage:
  quant_modifiers:
    QuantizationModifier:
      ignore: ["lm_head"]
      config_groups:
        group_0:
          targets: ["Linear"]
          weights: {num_bits: 4, type: int, symmetric: false, strategy: group, group_size: 32}
          input_activations: {num_bits: 8, type: int, strategy: token, dynamic: true}
Y
made zeros -r zeros.yaml
cat >cache.yaml <<'Y'
quant_stage:
  quant_modifiers:
    QuantizationModifier:
      kv_cache_scheme: {num_bits: 8, type: float, strategy: attn_head}
Y
made cache -r cache.yaml

ok 'what llmc makes is clean' 'clean_check w4 --against small'
ok '  ... also against the model that its provenance names' 'clean_check w4; [ ! -s err ]'
ok '  ... in shards' 'clean_check shards; [ "$(ls shards/*.safetensors | wc -l)" -gt 3 ]'
ok '  ... with zero points of a byte' 'clean_check zeros'
ok '  ... and where only the cache is compressed' 'clean_check cache; [ ! -s err ]'
ok 'where the source is not known that is said' '
    cp -a w4 alone
    rm alone/provenance.json
    clean_check alone
    oneline err
    grep -q "not known" err
    llmc-pack --check alone -q 2>err
    [ ! -s err ]
'
ok 'nor is it accounted for when the source is not what it was' '
    cp -a small gone
    llmc run gone -s W4A16 -g 32 -a rtn -o left -q >/dev/null
    echo "{" >gone/config.json
    clean_check left
    oneline err && grep -q "gone/config.json" err
    rm -r gone
    clean_check left
    oneline err && grep -q "not here" err
'
for f in "$root"/share/recipes/*.yaml; do
    s=$(basename "$f" .yaml | tr a-z A-Z)
    rm -rf p p.work
    if ! made p -s "$s" -a rtn 2>err && grep -q 'not supported' err; then
        skip "$s is clean" 'it cannot be made yet'
    else
        ok "$s is clean" 'clean_check p; [ ! -s err ]'
    fi
done
for m in base bias headdim f16 f32 sharded; do
    ok "so is the tiny model $m, which has no tokenizer" '
        rm -rf p p.work
        llmc run "$data/tiny/$m" -s W4A16 -g 16 -a rtn -o p -q >/dev/null
        clean_check p
        llmc-pack --dequantize p -o p.dense -q >/dev/null
        clean_check p.dense
        rm -r p.dense
    '
done
ok 'of a head that embeddings are tied to nothing is written, and that is on record' '
    model tied
    spoil tied "\$h->{q(lm_head.weight)} = { %{\$h->{q(model.norm.weight)}} };
        \$h->{q(lm_head.weight)}{data_offsets} = [length \$data, length(\$data) + 512]; \$data .= qq(\\0) x 512"
    llmc run tied -s W4A16 -g 32 -a rtn -o untied -q >/dev/null
    clean_check untied || exit 1
    ! grep -q lm_head.weight untied/model.safetensors
    tr -d " \n" <untied/provenance.json | grep -q "\"dropped\":\[\"lm_head.weight\"\]"
'

# --- what LLM Compressor made: golden vectors of both versions ---

for v in 0.10 0.14; do
    ok "tensors that LLM Compressor $v made are clean" '
        for f in "$vectors/llmc-$v"/rtn_*.json "$vectors/llmc-$v"/gptq_*.json; do
            rm -rf g && mkdir g
            perl "$data/mk/golden.pl" "$f" g
            clean_check g || { echo "$f"; exit 1; }
        done
    '
    ok "and its configurations are understood" '
        cp -a small dense
        perl -MJSON::PP -e "\$/ = undef; my \$all = decode_json(<STDIN>); for my \$k (keys %\$all) {
            open my \$o, q(>), qq(q-\$k.json); print \$o encode_json(\$all->{\$k}) }" <"$vectors/llmc-$v/configs.json"
        n=0
        for f in q-*.json; do
            cp "$demo/config.json" dense/config.json
            sed -i "s/\"num_hidden_layers\": 4/\"num_hidden_layers\": 2/" dense/config.json
            perl "$data/mk/json.pl" dense/config.json "open my \$f, q(<), q($f); \$c->{quantization_config} = decode_json(<\$f>)"
            llmc-pack --check dense --against small >out 2>err || [ $? -eq 1 ]
            grep -q "missing" out || { echo "$f: a dense model passes for a compressed one"; exit 1; }
            ! grep -E "	(config|args|format|ignore|target)	" out || { echo "$f"; exit 1; }
            n=$((n + 1))
        done
        rm -rf dense q-*.json
        [ "$n" -ge 16 ]
    '
done

# --- faults ---

# fault 'name' BASE 'RULE ...' SUBJECT 'script that spoils v': findings of just these rules, one of them of SUBJECT
fault() {
    t_base_dir=$2 t_rules=$3 t_subject=$4 t_script=$5
    ok "$1" '
        rm -rf v && cp -a "$t_base_dir" v
        (set -e; eval "$t_script")
        rc=0
        llmc-pack --check v --against "${against-small}" >out 2>err || rc=$?
        cat out err
        echo "exit status $rc, want 1 and findings: $t_rules, of $t_subject"
        [ "$rc" -eq 1 ]
        [ "$(cut -f 2 out | sort -u | tr "\n" " ")" = "$t_rules " ]
        cut -f 1 out | grep -Fqx -- "$t_subject"
        [ "$(awk -F "\t" "NF != 3" out | wc -l)" -eq 0 ]
    '
    echo "$3" | tr ' ' '\n' >>rules
}

# st CODE: changes v/model.safetensors, see st.pl; at NAME OFFSET BYTES are the bytes of a tensor there
st() {
    perl "$data/mk/st.pl" v/model.safetensors v/new "
        sub at { my (\$name, \$off, \$bytes) = @_; substr(\$data, \$h->{\$name}{data_offsets}[0] + \$off, length \$bytes) = \$bytes }
        sub put { my (\$name, \$type, \$shape, \$bytes) = @_;
            \$h->{\$name} = { dtype => \$type, shape => \$shape, data_offsets => [length \$data, length(\$data) + length \$bytes] };
            \$data .= \$bytes }
        sub gone { my (\$d, \$to) = (delete \$h->{\$_[0]})->{data_offsets};
            my \$n = \$d->[1] - \$d->[0]; substr(\$data, \$d->[0], \$n) = q();
            for my \$k (grep { \$_ ne q(__metadata__) } keys %\$h) {
                if (\$h->{\$k}{data_offsets}[0] >= \$d->[1]) { \$_ -= \$n for @{\$h->{\$k}{data_offsets}} } } }
        $1" && mv v/new v/model.safetensors
}
config() {
    perl "$data/mk/json.pl" v/config.json "my \$q = \$c->{quantization_config}; my \$g = \$q->{config_groups}{group_0}; $1"
}
index() {
    perl "$data/mk/json.pl" v/model.safetensors.index.json "my \$m = \$c->{weight_map}; $1"
}

a=model.layers.0.self_attn d=model.layers.1.mlp.down_proj

# values
fault 'a scale that is NaN' w4 scale $a.q_proj.weight_scale "st 'at(q($a.q_proj.weight_scale), 6, qq(\\xc0\\x7f))'"
fault 'a scale that is zero' w4 scale $d.weight_scale "st 'at(q($d.weight_scale), 0, qq(\\0\\0))'"
fault 'a negative scale' fp8 scale $d.weight_scale "st 'at(q($d.weight_scale), 2, qq(\\x80\\xbf))'"
fault 'a scale of e4m3 that is NaN' nv scale $d.weight_scale "st 'at(q($d.weight_scale), 9, qq(\\x7f))'"
fault 'a scale of e8m0 that is NaN' mx scale $d.weight_scale "st 'at(q($d.weight_scale), 9, qq(\\xff))'"
fault 'a global scale of zero' nv scale $d.weight_global_scale "st 'at(q($d.weight_global_scale), 0, qq(\\0\\0\\0\\0))'"
fault 'an infinite global scale' nv scale $d.weight_global_scale \
    "st 'at(q($d.weight_global_scale), 0, qq(\\0\\0\\x80\\x7f))'"
fault 'an unequal global scale in a fused group' nv shared-scale $a.k_proj.weight_global_scale \
    "st 'at(q($a.k_proj.weight_global_scale), 0, pack(q(f<), 1234))'"
fault 'a code that is NaN' fp8 code $d.weight "st 'at(q($d.weight), 1000, qq(\\xff))'"
fault 'a code beyond its bits' w4a8 code $d.weight "st 'at(q($d.weight), 1000, qq(\\x08))'"
fault 'a zero point beyond its bits' zeros zero-point $d.weight_zero_point "st 'at(q($d.weight_zero_point), 5, qq(\\xf0))'"
fault 'a norm that is not finite' w4 'changed not-finite' model.norm.weight "st 'at(q(model.norm.weight), 8, qq(\\x80\\x7f))'"
cat >blocks.yaml <<'Y'
quant_stage:
  quant_modifiers:
    QuantizationModifier:
      ignore: ["lm_head"]
      config_groups:
        group_0:
          targets: ["re:.*o_proj"]
          weights: {num_bits: 8, type: float, strategy: block, block_structure: [32, 32]}
          input_activations: {num_bits: 8, type: float, strategy: group, group_size: 32, dynamic: true}
Y
made blocks -r blocks.yaml
fault 'inputs that are not whole groups' blocks shape $a.o_proj \
    'config "\$g->{input_activations}{group_size} = 48"'
mkdir odd group
perl "$data/mk/golden.pl" "$vectors/llmc-0.14/rtn_int4_channel_asym_odd.json" odd
perl "$data/mk/golden.pl" "$vectors/llmc-0.10/gptq_int4_g128_asym_group.json" group
against=
fault 'padding that is not zero' odd padding layer.weight_packed \
    'st "at(q(layer.weight_packed), 4 * \$h->{q(layer.weight_packed)}{shape}[1] - 1, qq(\\x80))"'
fault 'padding of zero points' odd padding layer.weight_zero_point \
    'st "at(q(layer.weight_zero_point), 4 * \$h->{q(layer.weight_zero_point)}{shape}[0] - 1, qq(\\x80))"'
fault 'a column of no group' group group-index layer.weight_g_idx "st 'at(q(layer.weight_g_idx), 40, pack(q(l<), 2))'"
fault 'a column in the place of another' group group-index layer.weight_g_idx \
    "st 'my \$o = unpack(q(l<), substr(\$data, \$h->{q(layer.weight_g_idx)}{data_offsets}[0], 4));
        at(q(layer.weight_g_idx), 0, pack(q(l<), 1 - \$o))'"
unset against

# types, shapes and names
fault 'a scale of another type' w4 dtype $d.weight_scale "st '\$h->{q($d.weight_scale)}{dtype} = q(F16)'"
fault 'codes of another type' fp8 dtype $d.weight "st '\$h->{q($d.weight)}{dtype} = q(I8)'"
fault 'scales of another shape' w4 shape $d.weight_scale "st '\$_ = [reverse @\$_] for \$h->{q($d.weight_scale)}{shape}'"
fault 'a shape that its codes do not have' w4 shape $d.weight_shape \
    "st 'at(q($d.weight_shape), 8, pack(q(q<), 704))'"
fault 'a module of another shape than config.json says' w4 'changed shape' $d "st '
        my \$t = \$h->{q($d.weight_packed)}; my \$s = \$h->{q($d.weight_scale)};
        at(q($d.weight_shape), 0, pack(q(q<q<), 128, 1536));
        \$t->{shape} = [128, 192]; \$s->{shape} = [128, 48]'"
fault 'a tensor that is missing' w4 missing $a.v_proj "st 'gone(q($a.v_proj.weight_scale))'"
fault 'a module that is missing' w4 'dropped missing' $d "st 'gone(qq($d.weight_\$_)) for qw(packed scale shape)'"
fault 'a norm that is missing' w4 'dropped missing' model.norm "st 'gone(q(model.norm.weight))'"
fault 'a dense weight beside its codes' w4 leftover $d.weight "st 'put(q($d.weight), q(BF16), [2, 2], qq(\\0) x 8)'"
fault 'a zero point of symmetric weights' w4 leftover $d.weight_zero_point \
    "st 'put(q($d.weight_zero_point), q(I32), [32, 24], qq(\\0) x 3072)'"
fault 'a module that config.json leaves alone' w4 'dropped leftover missing' $d.weight_packed \
    "config 'push @{\$q->{ignore}}, q($d)'"
fault 'a module that config.json compresses, but is dense' w4 missing $d "st 'gone(qq($d.weight_\$_)) for qw(packed scale shape);
    put(q($d.weight), q(BF16), [256, 768], qq(\\0) x 393216)'"
fault 'a fused module of another scheme' w4 fused $a.k_proj "config '
    \$q->{config_groups}{group_1} = { %\$g, targets => [q($a.k_proj)],
        input_activations => { num_bits => 8, type => q(int), strategy => q(token), dynamic => JSON::PP::true } }'"
fault 'a fused module that is left alone' w4 'dropped fused leftover missing' $a.k_proj \
    "config 'push @{\$q->{ignore}}, q($a.k_proj)'"
fault 'a static scale of inputs that is not there' fp8 missing $d "config '
    \$g->{input_activations} = { num_bits => 8, type => q(float), strategy => q(tensor) }'"
fault 'scales of a cache that are not there' w4 missing $a "config '
    \$q->{kv_cache_scheme} = { num_bits => 8, type => q(float), strategy => q(tensor) }'"
fault 'a scale of a cache that is not finite' cache scale $a.v_scale "st 'at(q($a.v_scale), 0, qq(\x80\x7f))'"
fault 'scales of a cache for other heads' cache shape $a.v_scale "st 'gone(q($a.v_scale));
    put(q($a.v_scale), q(BF16), [3, 1, 1], qq(\x80\x3f) x 3)'"
fault 'scales of a cache that nobody asks for' w4 leftover $a.k_scale "st 'put(q($a.k_scale), q(BF16), [1], qq(\\x80\\x3f))'"
fault 'a tied head' w4 'extra tied' lm_head.weight "st 'put(q(lm_head.weight), q(BF16), [1, 1], qq(\\0\\0))'"

# config.json
fault 'an unknown key in the arguments' w4 args config.json "config '\$g->{weights}{num_bit} = 4; \$g->{weights}{zero} = 4'"
ok '  ... each is told' '[ "$(grep -c "unknown key" out)" -eq 2 ]'
fault 'arguments that do not go together' w4 args config.json "config '\$g->{weights}{strategy} = q(channel)'"
fault 'a format that cannot hold the weights' w4 format config.json \
    "config '\$_->{format} = q(nvfp4-pack-quantized) for \$g, \$q'"
fault 'a format of all that is not the groups'"'" w4 format config.json "config '\$q->{format} = q(mixed-precision)'"
fault 'ignoring what is no module' w4 ignore config.json "config 'push @{\$q->{ignore}}, q(model.layers.7.mlp.up_proj)'"
fault 'a pattern that matches nothing' w4 ignore config.json "config 'push @{\$q->{ignore}}, q(re:.*experts)'"
fault 'a group without modules' w4 target config.json \
    "config '\$q->{config_groups}{group_1} = { %\$g, targets => [q(re:.*experts)] }'"
fault 'a method of somebody else' w4 config config.json "config '\$q->{quant_method} = q(gptq)'"
fault 'a status of weights that are not compressed' w4 config config.json "config '\$q->{quantization_status} = q(frozen)'"
fault 'no quantization_config' w4 'config dropped leftover missing' config.json 'config "delete \$c->{quantization_config}"'
fault 'a cache that no runtime has' w4 'args missing' config.json "config '
    \$q->{kv_cache_scheme} = { num_bits => 4, type => q(int), strategy => q(tensor) }'"

# files
fault 'a header that does not say pt' w4 metadata model.safetensors "st '\$h->{__metadata__}{format} = q(np)'"
fault 'a file that is cut' w4 file model.safetensors 'head -c 50000 w4/model.safetensors >v/model.safetensors'
fault 'weights that lie beside' w4 stale model-00001-of-00002.safetensors \
    'cp v/model.safetensors v/model-00001-of-00002.safetensors'
fault 'an index that lists for another file' shards index model.norm.weight \
    'index "\$m->{q(model.norm.weight)} = \$m->{q(model.embed_tokens.weight)}"'
fault 'an index without a tensor' shards index model.norm.weight 'index "delete \$m->{q(model.norm.weight)}"'
fault 'an index with one more' shards index model.more.weight \
    'index "\$m->{q(model.more.weight)} = \$m->{q(model.norm.weight)}"'
fault 'an index that leads out of the directory' shards index model.more.weight \
    'index "\$m->{q(model.more.weight)} = q(../small/model.safetensors)"'
fault 'a shard that is gone' shards index model.norm.weight \
    'rm "v/$(sed -n "s/.*\"model.norm.weight\": \"\(.*\)\".*/\1/p" v/model.safetensors.index.json)"'
fault 'a total that is not the sum' shards total-size model.safetensors.index.json 'index "\$c->{metadata}{total_size}++"'
fault 'a tensor in two shards' shards 'duplicate index total-size' model.norm.weight '
    f=v/$(sed -n "s/.*\"model.embed_tokens.weight\": \"\(.*\)\".*/\1/p" v/model.safetensors.index.json)
    perl "$data/mk/st.pl" $f v/new "\$h->{q(model.norm.weight)} = { dtype => q(BF16), shape => [1],
        data_offsets => [length \$data, length(\$data) + 2] }; \$data .= qq(\\0\\0)" && mv v/new $f'
fault 'no tokenizer' w4 side-file tokenizer.json 'rm v/tokenizer.json'

# against the source
fault 'a copy that is not one' w4 changed model.embed_tokens.weight "st 'at(q(model.embed_tokens.weight), 4000, qq(\\1\\1))'"
fault 'a tensor out of nowhere' w4 extra model.more.weight "st 'put(q(model.more.weight), q(BF16), [1], qq(\\0\\0))'"

ok 'there is a fault for every rule' '
    llmc-pack --rules | cut -f 1 | sort >want
    sort -u rules | diff want -
'
ok 'and the manual page has them all' '
    llmc-pack --rules | sed "s/	/ Ta /; s/^/.It /" >want
    sed -n "/^\.Sh CHECKING/,/^\.Sh FILES/p" "$root/man/llmc-pack.1" | grep "^\.It" | diff want -
'
ok 'several faults are all found' "
    rm -rf v && cp -a w4 v
    rm v/tokenizer.json
    st 'at(q($d.weight_scale), 0, qq(\\0\\0)); at(q($a.k_proj.weight_scale), 0, qq(\\0\\0)); gone(q(model.norm.weight))'
    llmc-pack --check v >out || [ \$? -eq 1 ]
    cat out
    [ \"\$(wc -l <out)\" -eq 5 ]
"
ok 'names from outside make no lines of their own' "
    rm -rf v && cp -a w4 v
    config 'push @{\$q->{ignore}}, qq(a\\nb\\tc)'
    llmc-pack --check v >out || [ \$? -eq 1 ]
    cat out
    [ \"\$(wc -l <out)\" -eq 1 ] && [ \"\$(tr -cd '\\t' <out | wc -c)\" -eq 2 ]
"

# --- what cannot be read at all ---

refuse() {  # code name pattern script
    t_code=$1 t_pattern=$3 t_script=$4
    ok "$2" '
        rc=0
        (eval "$t_script") >out 2>err || rc=$?
        cat out err
        echo "exit status $rc, want $t_code"
        [ "$rc" -eq "$t_code" ] && [ ! -s out ] && oneline err && grep -q "$t_pattern" err
    '
}

mkdir empty nothing
echo '{}' >nothing/config.json
cp -a w4 torn && echo '{' >torn/config.json
refuse 66 'no directory' 'none: ' 'llmc-pack --check none'
refuse 66 'no config.json' 'config.json' 'llmc-pack --check empty'
refuse 66 'no weights' 'nothing: has neither' 'llmc-pack --check nothing'
refuse 65 'a config.json that is none' 'torn/config.json: JSON' 'llmc-pack --check torn'
refuse 66 'no such source' 'none: ' 'llmc-pack --check w4 --against none'
refuse 64 'a source without a check' 'goes with --check' 'llmc-pack --against small'
refuse 64 'a check that makes something' 'no -o' 'llmc-pack --check w4 -o out'
fails 74 'findings that cannot be printed' 'llmc-pack --check v >/dev/full 2>err'

# --- what is known before any work ---

cat >alike.yaml <<'Y'
quant_stage:
  quant_modifiers:
    QuantizationModifier:
      ignore: ["lm_head"]
      config_groups:
        group_0:
          targets: ["re:.*q_proj", "re:.*(o|gate|up|down)_proj"]
          weights: {num_bits: 4, type: int, strategy: group, group_size: 32}
        group_1:
          targets: ["re:.*[kv]_proj"]
          weights: {num_bits: 4, type: int, strategy: group, group_size: 32}
Y
ok 'fused modules may be of two groups that are alike' '
    made alike -r alike.yaml
    clean_check alike
    [ "$(grep -c "\"group_[01]\": {" alike/config.json)" -eq 2 ]
'
refuse 65 'but not of two that are not' 'q_proj and .*k_proj are loaded as one' '
    sed "/group_1/,\$s/group_size: 32/group_size: 64/" alike.yaml >unlike.yaml
    llmc-shard -m small -r unlike.yaml --plan'
ok 'FP8 blocks that fused modules would share are warned of, once' '
    llmc-shard -m small -s FP8_BLOCK --plan >out 2>err
    cat err
    oneline err && grep -q "k_proj: 64 rows are not whole blocks" err
'

# --- the check of our own results ---

spoiled() { # CODE: the task file of d in a copy of w
    rm -rf x && cp -a w x
    perl "$data/mk/st.pl" "w/weights/$d.safetensors" "x/weights/$d.safetensors" "$1"
}
spoiled 'substr($data, $h->{"'$d'.weight_scale"}{data_offsets}[0], 2) = "\0\0"'
refuse 70 'a result with a scale of zero is not published' "$d.weight_scale: .*(scale)" 'llmc-pack -C x -o x.out'
ok '  ... nothing is left of it' '[ ! -e x.out ] && clean none'
spoiled '$h->{"'$d'.weight_scale"}{dtype} = "F16"'
refuse 70 'nor one with scales of another type' "$d.weight_scale: .*(dtype)" 'llmc-pack -C x -o x.out'
spoiled 'delete $h->{"'$d'.weight_shape"}; $_->{data_offsets} = [map { $_ - 16 } @{$_->{data_offsets}}]
    for grep { ref && $_->{data_offsets} && $_->{data_offsets}[0] >= 16 } values %$h; substr($data, 0, 16) = ""'
refuse 70 'nor one without a tensor' "$d: no weight_shape" 'llmc-pack -C x -o x.out'

# --- dense again ---

ok 'a compressed model becomes a plain one' '
    llmc-pack --dequantize w4 -o dense >out
    cat out
    grep -q "^14 weights made dense, 6 tensors copied," out
    clean_check dense
    ! grep -q quantization_config dense/config.json
    { (cd small && ls); echo recipe.yaml; echo provenance.json; } | sort >want
    ls dense | diff want -
'
for m in w4 asym w4a8 fp8 nv mx zeros shards; do
    ok "  ... that scores as before, to the last digit ($m)" '
        rm -rf dense
        llmc-pack --dequantize "$m" -o dense -q >/dev/null
        llmc-eval -m "$m" -d ids -w 2 -l 64 -q --weights-only | cut -f 2- >want
        llmc-eval -m dense -d ids -w 2 -l 64 -q | cut -f 2- | diff want -
        [ -s want ]
    '
done
ok '  ... scales of a cache are left out, too' '
    rm -rf dense
    llmc-pack --dequantize cache -o dense -q >/dev/null
    clean_check dense
    ! grep -q k_scale dense/model.safetensors
    perl "$data/mk/values.pl" small/model.safetensors . >want
    perl "$data/mk/values.pl" dense/model.safetensors . | cmp - want
'
ok 'with any number of threads, and in shards' '
    llmc-pack --dequantize w4 -o one --threads 1 -q && llmc-pack --dequantize w4 -o three --threads 3 -q && diff -r one three
    llmc-pack --dequantize shards -o many --shard-size 300K -q
    clean_check many
    [ "$(ls many/*.safetensors | wc -l)" -gt 3 ]
'
# differ A B: how many bf16 values are further apart than ULPS, zeros being alike
differ() {
    perl -e 'my ($ulps, @f) = @ARGV; undef $/; my @v = map { open my $f, "<:raw", $_ or die; [unpack "v*", <$f>] } @f;
        my $n = grep { my ($x, $y) = map { $_ == 0x8000 ? 0 : $_ } $v[0][$_], $v[1][$_]; abs($x - $y) > $ulps } 0 .. $#{$v[0]};
        print "$n\n"; exit 1 if $n || !@{$v[0]} || @{$v[0]} != @{$v[1]}' "$3" "$1" "$2"
}
values_of() {   # CASE ULPS
    rm -rf g gd && mkdir g
    perl "$data/mk/golden.pl" "$vectors/$1.json" g
    llmc-pack --dequantize g -o gd -q >/dev/null
    tail -c "$(wc -c <g/qdq.bin)" gd/model.safetensors >values
    echo "$1" && differ g/qdq.bin values "$2"
}
ok 'the values are those that LLM Compressor rounded to' '
    for c in int4_g128_asym_weight int4_g128_sym_none NVFP4A16_weight MXFP4A16_weight MXFP8A16_weight FP8_BLOCK_weight; do
        values_of llmc-0.14/gptq_$c 0
    done
'
ok '  ... also in an order of columns; 0.10 rounds its scales after' '
    values_of llmc-0.10/gptq_int4_g128_asym_group 1
    values_of llmc-0.10/gptq_int4_g128_sym_group 1
'
refuse 73 'an output that exists' 'one: exists already' 'llmc-pack --dequantize w4 -o one'
refuse 65 'a plain model' 'small: is not compressed' 'llmc-pack --dequantize small -o out2'
refuse 64 'no output' 'no output' 'llmc-pack --dequantize w4'
rm -rf v && cp -a group v && (st 'at(q(layer.weight_g_idx), 0, pack(q(l<), 9))')
refuse 65 'columns of no group' 'layer.weight_g_idx: .*(group-index)' 'llmc-pack --dequantize v -o out2'
rm -rf v && cp -a w4 v && (st "at(q($d.weight_scale), 0, qq(\\0\\0))")
refuse 65 'a scale of zero' "$d.weight_scale: .*(scale)" 'llmc-pack --dequantize v -o out2'
rm -rf v && cp -a w4 v && (st "gone(q($d.weight_scale))")
refuse 65 'a tensor that is missing' "$d: no weight_scale" 'llmc-pack --dequantize v -o out2'
ok '  ... makes nothing' '[ ! -e out2 ] && clean none'

done_testing
