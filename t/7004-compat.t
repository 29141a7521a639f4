#!/bin/sh
# --compat 0.10: schemes, config.json, groups in the order of activations, what a plan remembers
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

ids 16 4 >ids
configs=$data/../golden/vectors/llmc-0.10/configs.json

# The two configurations, but for what the golden one cannot know: what is ignored.
cat >same.pl <<'P'
use strict; use warnings; use JSON::PP;
sub load { open my $f, '<:raw', $_[0] or die "$_[0]: $!\n"; local $/; my $t = <$f>; $t =~ s/\bInfinity\b/1/g; decode_json($t) }
my ($dir, $configs, $key) = @ARGV;
my $got = load("$dir/config.json")->{quantization_config};
my $want = load($configs)->{$key} or die "no $key\n";
die "ignore\n" if join(',', @{$got->{ignore}}) ne 'lm_head';
$_->{ignore} = [] for $got, $want;
my $j = JSON::PP->new->canonical->pretty;
my ($a, $b) = map { $j->encode($_) } $got, $want;
if ($a ne $b) { print "$key:\n$a\nwant\n$b"; exit 1 }
P

for s in W4A16 W4A16_ASYM W8A16 W8A8 INT8 W4A8 W4AFP8 FP8_DYNAMIC FP8_BLOCK NVFP4A16 MXFP4A16 MXFP4; do
    ok "the configuration of $s is that of 0.10" "
        llmc run \"\$demo\" -s $s -a rtn --compat 0.10 -q -o rtn-$s >out
        perl same.pl rtn-$s \"$configs\" $s
        llmc-pack --check rtn-$s >out || { cat out; exit 1; }
    "
done
cat >mixed.yaml <<'Y'
a_stage:
  a_modifiers:
    QuantizationModifier: {ignore: lm_head, scheme: {FP8_DYNAMIC: "re:.*self_attn.*", NVFP4A16: "re:.*mlp.*"}}
Y
for v in 0.10 0.14; do
    ok "two schemes: each group its format, mixed-precision on top, as $v has it" "
        llmc run \"\$demo\" -r mixed.yaml --compat $v -q -o mixed-$v >out
        perl same.pl mixed-$v \"$data/../golden/vectors/llmc-$v/configs.json\" mixed-precision
        llmc-pack --check mixed-$v >out || { cat out; exit 1; }
    "
done
fails 65 'a scheme that came later' 'llmc-shard --plan -m "$demo" -s W3A16 --compat 0.10 2>err; rc=$?; oneline err; exit $rc'
fails 64 'a version that there is not' 'llmc-shard --plan -m "$demo" -s W4A16 --compat 0.9 2>err'

ok 'GPTQ' 'llmc run "$demo" -s W4A16 -d ids --compat 0.10 -q -C w -o v10 && llmc run "$demo" -s W4A16 --observer minmax \
    -d ids -q -C w14 -o v14'
ok '  ... orders columns by default' '
    perl "$data/mk/json.pl" v10/config.json "for (\$c->{quantization_config}{config_groups}{group_0}{weights}) {
        die unless \$_->{actorder} eq \"static\" && \$_->{observer} eq \"memoryless_minmax\"; \$_->{actorder} = undef }"
    perl same.pl v10 "$configs" W4A16
'
ok '  ... rounds otherwise than 0.14, to much the same loss' '
    ! cmp -s v10/model.safetensors v14/model.safetensors
    for d in v10 v14; do llmc-eval -q -m $d -d "$demo/eval.jsonl" -l 128 | cut -f 2; done >ppl
    awk "{ p[NR] = \$1 } END { print p[1], p[2]; exit !(p[1] > 1 && (p[1] / p[2] - 1) ^ 2 < 0.02 ^ 2) }" ppl
'
fails 65 'a plan of one version is not that of another' '
    llmc-shard -C w -m "$demo" -s W4A16 --observer minmax -d ids -q 2>err; rc=$?; cat err; grep -q "another recipe" err; exit $rc'

cat >group.yaml <<'Y'
a_stage:
  a_modifiers:
    GPTQModifier: {targets: [Linear], ignore: [lm_head], actorder: group, config_groups: {g: {targets: [Linear],
      weights: {num_bits: 4, group_size: 32, symmetric: false}}}}
b_stage:
  a_modifiers:
    SmoothQuantModifier: {}
Y
fails 65 'actorder group is of 0.10' '
    llmc-shard --plan -m "$demo" -r group.yaml --stage a_ 2>err; rc=$?; grep -q "with --compat 0.10" err; exit $rc'
fails 65 'and of the stage that has it' '
    llmc-shard --plan -m "$demo" -r group.yaml --compat 0.10 2>err; rc=$?; grep -q SmoothQuantModifier err; exit $rc'
ok 'groups in the order of activations' '
    llmc run "$demo" -r group.yaml --stage a_ --compat 0.10 -d ids -q -o group
    llmc-pack --check group >out || { cat out; exit 1; }
'
ok '  ... that of q, k and v is one' '
    for m in q k v; do
        perl "$data/mk/st.pl" group/model.safetensors /dev/null "my (\$b, \$e) =
            @{\$h->{\"model.layers.1.self_attn.${m}_proj.weight_g_idx\"}{data_offsets}}; print substr \$data, \$b, \$e - \$b" >$m.idx
    done
    [ "$(wc -c <q.idx)" -eq 1024 ]
    cmp q.idx k.idx
    cmp q.idx v.idx
    od -An -v -td4 -w4 q.idx | sort -n | uniq -c | awk "\$1 != 32 || \$2 != NR - 1 { bad = 1 } END { exit bad || NR != 8 }"
    od -An -v -td4 -w4 q.idx | awk "{ moved += \$1 != int((NR - 1) / 32) } END { exit !moved }"
'
ok '  ... and what they decode to is near the original' '
    for d in "$demo" group; do llmc-eval -q -m $d -d "$demo/eval.jsonl" -l 128 | cut -f 2; done >ppl
    awk "{ p[NR] = \$1 } END { print p[1], p[2]; exit !(p[1] > 1 && (p[2] / p[1] - 1) ^ 2 < 0.05 ^ 2) }" ppl
'
same_threads() { llmc run "$demo" -r group.yaml --stage a_ --compat 0.10 -d ids -q -j "$1" -o "group$1"; }
ok 'with any number of threads' 'same_threads 1 && same_threads 3 && cmp group1/model.safetensors group3/model.safetensors &&
    cmp group/model.safetensors group1/model.safetensors'
done_testing
