#!/bin/sh
# llmc-shard refuses models that are not whole, lie or are unknown
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

ids 32 4 >ids
shard='llmc-shard -C w -s W4A16 -g 32 -d ids -m'
q=model.layers.1.self_attn.q_proj.weight

ok 'the model as it is passes' 'llmc-shard -C good -s W4A16 -g 32 -d ids -m "$demo" && [ -s good/plan.json ]'

# --- absent ---

refused 66 'no such directory' 'nowhere' "$shard nowhere"
refused 65 'a file that is no tar in its place' 'ids: neither a directory nor a tar' "$shard ids"
mkdir empty
refused 66 'an empty directory' 'empty/config.json' "$shard empty"
mkdir noweights && cp "$demo/config.json" noweights
refused 66 'no safetensors' 'noweights: .*safetensors' "$shard noweights"
mkdir pickled && cp "$demo/config.json" pickled && echo >pickled/pytorch_model.bin
refused 66 'weights of another kind are named' 'bin files' "$shard pickled"
mkdir unlisted && cp "$demo/config.json" unlisted
echo '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}' >unlisted/model.safetensors.index.json
refused 66 'a shard that the index lists' 'model-00001-of-00002' "$shard unlisted"
echo '{"weight_map": {"a": "../x.safetensors"}}' >unlisted/model.safetensors.index.json
refused 65 'an index that points elsewhere' '[.][.]/x.safetensors is not a plain file name' "$shard unlisted"
echo '{"weight_map": {}}' >unlisted/model.safetensors.index.json
refused 65 'an empty index' 'weight_map' "$shard unlisted"

# --- cut ---

size=$(wc -c <"$demo/model.safetensors")
model cut
for n in 0 7 8 100 3000 $((size / 2)) $((size - 1)); do
    head -c $n "$demo/model.safetensors" >cut/model.safetensors
    refused 65 "cut to $n bytes" 'cut/model.safetensors: ' "$shard cut"
done
{ cat "$demo/model.safetensors"; printf x; } >cut/model.safetensors
refused 65 'one byte too many' 'cut/model.safetensors: tensors end at byte' "$shard cut"

# --- lying headers ---

lies() {    # name pattern code
    model lie
    spoil lie "$3"
    refused 65 "$1" "lie/model.safetensors: .*$2" "$shard lie"
}

lies 'header length beyond the file' 'header' '$n = 1 << 26'
lies 'header length beyond reason' 'header' '$n = 1 << 62'
lies 'header length of nothing' 'header' '$n = 0'
lies 'header length that cuts the header' 'header byte 100' '$n = 100'
lies 'tensors that overlap' 'overlap' '
    delete $h->{__metadata__};
    my $names = [sort { $h->{$a}{data_offsets}[0] <=> $h->{$b}{data_offsets}[0] } keys %$h];
    $h->{$names->[2]}{data_offsets} = [@{$h->{$names->[1]}{data_offsets}}];
    $h->{$names->[2]}{shape} = $h->{$names->[1]}{shape}'
lies 'a hole' 'hole' '
    my ($last) = sort { $b->{data_offsets}[0] <=> $a->{data_offsets}[0] } grep { $_->{shape} } values %$h;
    $_ += 64 for @{$last->{data_offsets}};
    $data .= "x" x 64'
lies 'a shape that its offsets do not hold' 'takes .* span' "\$h->{'$q'}{shape}[0] += 1"
lies 'a type that its offsets do not hold' 'takes .* span' "\$h->{'$q'}{dtype} = 'F32'"
lies 'an unknown type' 'F12' "\$h->{'$q'}{dtype} = 'F12'"
lies 'a shape that overflows' 'overflows' "\$h->{'$q'}{shape} = [4294967296, 4294967296]"
lies 'a negative size' 'not negative' "\$h->{'$q'}{shape}[0] = -256"
lies 'offsets that run backwards' 'starts at byte .* ends at' "\$h->{'$q'}{data_offsets} = [reverse @{\$h->{'$q'}{data_offsets}}]"
lies 'offsets beyond the file' "$q" "\$h->{'$q'}{data_offsets}[1] = 1 << 40"
lies 'a tensor without offsets' 'data_offsets' "delete \$h->{'$q'}{data_offsets}"
lies 'a tensor that is no object' "$q" "\$h->{'$q'} = 3"

model lie
perl -e 'my $t = q({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}});
    print pack("Q<", length $t), $t, "x"' >lie/model.safetensors
refused 65 'a name that stands twice' 'lie/model.safetensors: .* a ' "$shard lie"
perl -e 'print pack("Q<", 60000), "[" x 60000' >lie/model.safetensors
refused 65 'a header that nests without end' 'lie/model.safetensors: ' "$shard lie"
perl -e 'print pack("Q<", 4096), map { chr(33 + ($_ * 7919) % 90) } 1 .. 4096' >lie/model.safetensors
refused 65 'a header of noise' 'lie/model.safetensors: ' "$shard lie"
perl -e 'my $t = "{\"a\\u001b[31m\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}"; print pack("Q<", length $t), $t, "x"' \
    >lie/model.safetensors
refused 65 'a name with an escape sequence' 'control' "$shard lie"
ok 'which does not reach the terminal' '[ "$(tr -d "\n\040-\176" <err | wc -c)" -eq 0 ]'

# --- whole, but not what config.json says ---

spoilt() {  # name pattern code
    model odd
    spoil odd "$3"
    refused 65 "$1" "$2" "$shard odd"
}

spoilt 'a tensor is missing' "$q" "\$h->{'x'} = delete \$h->{'$q'}"
spoilt 'a weight of another shape' "$q.*want" "\$h->{'$q'}{shape} = [128, 512]"
spoilt 'a weight of one dimension' "$q" "\$h->{'$q'}{shape} = [65536]"
spoilt 'a weight of integers' "$q is I16" "\$h->{'$q'}{dtype} = 'I16'"

config() {  # name pattern perl
    model conf
    CODE=$3 perl -MJSON::PP -0777 -ne 'my $c = decode_json($_); eval $ENV{CODE}; print encode_json($c)' \
        "$demo/config.json" >conf/config.json
    refused 65 "$1" "$2" "$shard conf"
}

config 'an unknown model_type' 'model_type "rwkv" is not supported; there are .*llama' '$c->{model_type} = "rwkv"'
config 'no model_type' 'model_type' 'delete $c->{model_type}'
config 'model_type is a number' 'model_type' '$c->{model_type} = 7'
config 'an unknown activation' 'hidden_act "mish"' '$c->{hidden_act} = "mish"'
config 'an unknown RoPE' 'rope_type "spiral"' '$c->{rope_parameters}{rope_type} = "spiral"'
config 'no hidden_size' 'hidden_size' 'delete $c->{hidden_size}'
config 'a negative hidden_size' 'hidden_size' '$c->{hidden_size} = -256'
config 'a fractional hidden_size' 'hidden_size' '$c->{hidden_size} = 256.5'
config 'more layers than there are' 'model.layers.4[.]' '$c->{num_hidden_layers} = 5'
config 'layers without end' 'num_hidden_layers' '$c->{num_hidden_layers} = 2147483647'
config 'heads that do not share evenly' 'heads' '$c->{num_key_value_heads} = 3'
config 'no heads' 'heads' '$c->{num_attention_heads} = 0'
config 'no key/value heads' 'heads' '$c->{num_key_value_heads} = 0'
config 'compressed already' 'compressed already .*compressed-tensors' '
    $c->{quantization_config} = { quant_method => "compressed-tensors", format => "pack-quantized" }'
config 'compressed by others' 'compressed already .*awq' '$c->{quantization_config} = { quant_method => "awq" }'

model conf
echo '{"model_type": "llama", ' >conf/config.json
refused 65 'config.json is cut' 'conf/config.json' "$shard conf"
echo '[1]' >conf/config.json
refused 65 'config.json is a list' 'conf/config.json: not an object' "$shard conf"
: >conf/config.json
refused 65 'config.json is empty' 'conf/config.json' "$shard conf"

done_testing
