#!/bin/sh
# llmc-shard on models of many families: plans from config.json alone, what is carried over, what is refused
. "${0%/*}/lib.sh"
. "$data/mk/arch.sh"

plan() {        # modules and tasks that are planned for a configuration
    llmc-shard --plan -m "$data/configs/$1" -s W4A16 >plan
    tail -n 1 plan | cut -d ' ' -f 2-7
}

# Counts are those of transformers on the meta device: t/peer/count_modules.py compares names and shapes too.
for c in 'llama-2-70b 561 560 320' 'llama-3-8b 225 224 128' 'qwen3-30b-a3b 18673 18624 192' \
    'mixtral-8x7b 929 896 128' 'gemma-3-27b 434 434 248'; do
    set -- $c
    ok "$1 is planned from its config.json alone" "
        got=\$(plan $1)
        echo \"\$got\"
        [ \"\$got\" = '$2 modules, $3 tasks in $4' ]
    "
done
ok 'a router is left alone, experts are not' '
    plan qwen3-30b-a3b >/dev/null
    grep -q "^model.layers.47.mlp.gate	\[128, 2048\]	no target matches" plan
    grep -q "^model.layers.47.mlp.experts.127.down_proj	\[2048, 768\]	W4A16" plan
'
ok 'a router that a recipe names is compressed' '
    cat >router.yaml <<-END
	quant_stage:
	  quant_modifiers:
	    GPTQModifier:
	      targets: [Linear, "re:.*mlp[.]gate$"]
	      scheme: W4A16
	      ignore: [lm_head]
	END
    llmc-shard --plan -m "$data/configs/qwen3-30b-a3b" -r router.yaml | grep "mlp.gate	" | cut -f 3 | sort | uniq -c >got
    cat got
    [ "$(tr -s " " <got)" = " 48 W4A16" ]
'
fails 66 'nothing is written for a config.json alone' '
    llmc-shard -C w -m "$data/configs/llama-3-8b" -s W4A16 -d /dev/null 2>err || { rc=$?; cat err; oneline err; exit $rc; }
'

family gemma3_vision vision
ok 'a vision tower is carried over and listed' '
    carried vision >got
    grep -v "^model\|^language_model" "$data/arch/gemma3_vision/tensors.txt" | cut -d " " -f 1 | diff - got
    [ "$(wc -l <got)" -gt 10 ]
'
family qwen3 mtp '$a\
model.layers.3.eh_proj.weight BF16 32 64\
model.layers.3.mlp.gate_proj.weight BF16 48 32\
mtp.fc.weight BF16 32 64'
ok 'a head that predicts more tokens is carried over and listed' '
    carried mtp >got
    printf "%s\n" model.layers.3.eh_proj.weight model.layers.3.mlp.gate_proj.weight mtp.fc.weight | diff - got
'
family qwen3 unknown '$a\
model.layers.1.self_attn.sinks BF16 4'
fails 65 'a tensor in a layer that the family does not have is refused by name' '
    llmc-shard --plan -m unknown -s W4A16 -g 16 2>err ||
        { rc=$?; oneline err; grep -q "model.layers.1.self_attn.sinks: is a tensor that" err; exit $rc; }
'
family olmo2 bias 's/attention_bias/&/'
sed 's/"attention_bias": true/"attention_bias": false/' bias/config.json >c && mv c bias/config.json
fails 65 'biases that config.json does not speak of are refused' '
    llmc-shard --plan -m bias -s W4A16 -g 16 2>err ||
        { rc=$?; oneline err; grep -q "model.layers.0.self_attn.k_proj.bias: is a tensor that" err; exit $rc; }
'

# --- FP8 in blocks ---
family fp8 fp8
for change in 's/"quant_method": "fp8"/"quant_method": "gptq"/' 's/"weight_block_size"/"block"/' 's/"dtype": "bfloat16"/"dtype": "float16"/'; do
    cp -r fp8 other && sed "$change" fp8/config.json >other/config.json
    fails 65 "a model compressed in another way is refused: $change" '
        llmc-shard --plan -m other -s W4A16 2>err ||
            { rc=$?; cat err; oneline err; grep -q "is compressed already (\(gptq\|fp8\))" err; exit $rc; }
    '
    rm -r other
done
ok 'a model in FP8 blocks is not' 'llmc-shard --plan -m fp8 -s W4A16 | grep -q "# 8 modules, 7 tasks"'

done_testing
