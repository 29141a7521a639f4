#!/bin/sh
# llmc-shard and recipes: group sizes, schemes, patterns, keys
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

ids 32 4 >ids
shard='llmc-shard -C w -m "$demo" -d ids'

# --- schemes by name ---

refused 65 'a group size that does not divide' \
    'model.layers.0.self_attn.q_proj: 256 columns are not a multiple of group size 48' \
    "$shard -s W4A16 -g 48"
refused 65 'one that divides some modules only' 'down_proj: 768 columns' "$shard -s W4A16 -g 512"
refused 64 'a negative group size' '-g: -2 is out of range' "$shard -s W4A16 -g -2"
refused 65 'an unknown scheme' 'W5A99' "$shard -s W5A99"
refused 65 'an empty scheme' 'scheme' "$shard -s ''"
refused 65 'a group size for floats' 'integer' "$shard -s FP8 -g 32"

# --- recipe files ---

refused 66 'no recipe file' 'nowhere.yaml' "$shard -r nowhere.yaml"

# The modifier on stdin, with the two levels that all recipes have around it.
recipe() {
    printf 'default_stage:\n  default_modifiers:\n' >r.yaml
    sed 's/^/    /' >>r.yaml
}

broken() {  # name pattern, the modifier on stdin
    recipe
    refused 65 "$1" "r.yaml: .*$2" "$shard -r r.yaml"
}

ok 'a recipe that is as it should be passes' '
    recipe <<-E
	GPTQModifier:
	  targets: [Linear]
	  ignore: [lm_head, "re:.*layers[.]0[.].*"]
	  scheme: W4A16
	  dampening_frac: 0.05
	E
    llmc-shard -C good -m "$demo" -d ids -r r.yaml
    [ "$(sed 1d good/tasks.tsv | wc -l)" -eq 21 ]
    [ "$(grep -c layers.0 good/tasks.tsv)" -eq 0 ]
'

refused_recipe() {   # as broken, but the message does not begin with the file
    recipe
    refused 65 "$1" "$2" "$shard -r r.yaml"
}

ok 'an ignore pattern that matches nothing is told, the recipe goes on' '
    recipe <<-E
	GPTQModifier:
	  targets: [Linear]
	  ignore: [lm_head, "re:.*vision.*"]
	  scheme: W4A16
	E
    llmc-shard --plan -m "$demo" -r r.yaml >out 2>err
    [ "$(grep -c W4A16 out)" -eq 28 ]
    grep -q "r.yaml: ignore entry \"re:.*vision.*\" matches no module" err
'
refused_recipe 'a target that embeddings match' 'model.embed_tokens cannot be compressed' <<'E'
GPTQModifier:
  targets: ["re:model.*"]
  scheme: W4A16
E
refused_recipe 'an ignored name that matches nothing' 'ignore entry "lm_haed" matches no module' <<'E'
GPTQModifier:
  targets: [Linear]
  ignore: [lm_haed]
  scheme: W4A16
E
refused_recipe 'a target that matches nothing' 'target "re:.*k_porj" matches no module' <<'E'
GPTQModifier:
  targets: ["re:.*k_proj", "re:.*q_proj", "re:.*v_proj", "re:.*k_porj"]
  scheme: W4A16
E
refused_recipe 'a pattern that is no regular expression' 'pattern "re:.*[(]q_proj": ' <<'E'
GPTQModifier:
  targets: [Linear]
  ignore: ["re:.*(q_proj"]
  scheme: W4A16
E
refused_recipe 'all modules ignored' 'compresses no module' <<'E'
GPTQModifier:
  targets: [Linear]
  ignore: ["re:.*"]
  scheme: W4A16
E
refused_recipe 'q_proj in one scheme and k_proj in none' 'q_proj and .*k_proj are loaded as one' <<'E'
GPTQModifier:
  targets: ["re:.*q_proj"]
  scheme: W4A16
E
refused_recipe 'inputs in groups, where a row is not whole groups' \
    "q_proj: 256 columns are not a multiple of the inputs' group size 96" <<'E'
GPTQModifier:
  ignore: [lm_head]
  config_groups:
    group_0:
      targets: [Linear]
      weights: {num_bits: 8, type: float, strategy: block, block_structure: [128, 128]}
      input_activations: {num_bits: 8, type: float, strategy: group, group_size: 96, dynamic: true}
E
broken 'an unsupported modifier' 'modifier SmoothQuantModifier is not supported; llmc does GPTQModifier' <<'E'
SmoothQuantModifier:
  smoothing_strength: 0.8
E
broken 'a module that two modifiers compress' 'GPTQModifier of .* compresses it, and QuantizationModifier of .* again' <<'E'
GPTQModifier:
  targets: [Linear]
  scheme: W4A16
QuantizationModifier:
  targets: [Linear]
  scheme: W4A16
E
broken 'an unknown argument' 'GPTQModifier: unknown argument damping_frac' <<'E'
GPTQModifier:
  targets: [Linear]
  scheme: W4A16
  damping_frac: 0.1
E
broken 'an unknown argument of a scheme' 'nbits: unknown key' <<'E'
GPTQModifier:
  config_groups:
    group_0:
      targets: [Linear]
      weights: {nbits: 4, type: int, symmetric: true, strategy: group, group_size: 32}
E
broken 'an unknown key of a group' 'group_0: unknown key wieghts' <<'E'
GPTQModifier:
  config_groups:
    group_0:
      targets: [Linear]
      wieghts: {num_bits: 4}
E
broken 'an unknown value' 'type: unknown value text' <<'E'
GPTQModifier:
  config_groups:
    group_0:
      targets: [Linear]
      weights: {num_bits: 4, type: text, strategy: channel}
E
broken 'nine bits' 'num_bits is 9' <<'E'
GPTQModifier:
  config_groups:
    group_0:
      targets: [Linear]
      weights: {num_bits: 9, type: int, strategy: channel}
E
broken 'a negative damping' 'dampening_frac is negative' <<'E'
GPTQModifier:
  targets: [Linear]
  scheme: W4A16
  dampening_frac: -0.1
E
broken 'a damping that is text' 'dampening_frac' <<'E'
GPTQModifier:
  targets: [Linear]
  scheme: W4A16
  dampening_frac: little
E
broken 'neither scheme nor groups' 'neither scheme nor config_groups' <<'E'
GPTQModifier:
  targets: [Linear]
E
broken 'scheme and groups' 'exclude each other' <<'E'
GPTQModifier:
  targets: [Linear]
  scheme: W4A16
  config_groups: {group_0: {targets: [Linear], weights: {num_bits: 4, strategy: channel}}}
E
broken 'a cache scheme that no runtime reads' 'kv_cache_scheme: not supported but for 8-bit floats' <<'E'
GPTQModifier:
  targets: [Linear]
  scheme: W4A16
  kv_cache_scheme: {num_bits: 8, type: int}
E
broken 'targets that are a mapping' 'targets is not a list of strings' <<'E'
GPTQModifier:
  targets: {a: b}
  scheme: W4A16
E
broken 'a key that stands twice' 'stands twice' <<'E'
GPTQModifier:
  scheme: W4A16
  scheme: W8A16
E

whole() {   # name pattern text
    printf %b "$3" >r.yaml
    refused 65 "$1" "r.yaml: .*$2" "$shard -r r.yaml"
}

whole 'an empty recipe' '' ''
whole 'a list' 'mapping' '- a\n- b\n'
whole 'a bare modifier' 'GPTQModifier.*stage' 'GPTQModifier:\n  scheme: W4A16\n'
whole 'a stage of no modifier' 'no modifier' 'a_stage:\n  b_modifiers: {}\n'
whole 'YAML that is none' 'line 2' 'a: [b\nc: d\n'
whole 'an alias' '' 'a_stage: &a\n  b_modifiers: *a\n'
whole 'a tab' 'line 2' 'a_stage:\n\tb: c\n'
perl -e 'print "[" x 100000' >r.yaml
refused 65 'nesting without end' 'r.yaml: ' "$shard -r r.yaml"
head -c 3000 /dev/zero >r.yaml
refused 65 'zeros' 'r.yaml: ' "$shard -r r.yaml"

done_testing
