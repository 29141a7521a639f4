#!/bin/sh
# How well a model would share its work between ranks: share/replay.sh BUILD SHAPES [RANKS]
#
# Makes one layer of the named shapes (llama-3-8b, qwen3-30b-a3b) with weights out of a small random block, compresses it
# with one rank, and replays its measured times on other numbers of ranks (default 1,2,4,8,16,32,64) as if there were
# SAMPLES samples (512) of LENGTH tokens (2048); layers are alike, so one stands for all. THREADS, LINK (GB/s into and out
# of a rank), LATENCY (microseconds a message), SCHEME, TOKENS that are really run (2048); KEEP: a directory to work in.
set -eu
bin=$1/bin shapes=$2 ranks=${3:-1,2,4,8,16,32,64}
tmp=${KEEP:-$(mktemp -d)}
[ -n "${KEEP:-}" ] || trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$tmp/model"

case $shapes in
llama-3-8b)
	cat >"$tmp/model/config.json" <<-'END'
	{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "hidden_size": 4096,
	 "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
	 "num_hidden_layers": 1, "vocab_size": 32, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "hidden_act": "silu",
	 "max_position_embeddings": 8192, "tie_word_embeddings": false}
	END
	hidden=4096 attention=4096 cache=1024 experts=0 width=14336 norms= ;;
qwen3-30b-a3b)
	cat >"$tmp/model/config.json" <<-'END'
	{"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "dtype": "bfloat16", "hidden_size": 2048,
	 "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
	 "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [], "num_attention_heads": 32,
	 "num_key_value_heads": 4, "head_dim": 128, "num_hidden_layers": 1, "vocab_size": 32, "rms_norm_eps": 1e-06,
	 "rope_theta": 1000000.0, "hidden_act": "silu", "max_position_embeddings": 40960, "attention_bias": false,
	 "tie_word_embeddings": false}
	END
	hidden=2048 attention=4096 cache=512 experts=128 width=768 norms=128 ;;
*)
	echo "replay.sh: no shapes $shapes; there are llama-3-8b and qwen3-30b-a3b" >&2
	exit 64 ;;
esac

# Rows and columns of all tensors, in the order of the file.
{
	echo "model.embed_tokens 32 $hidden"
	layer=model.layers.0
	echo "$layer.input_layernorm $hidden"
	echo "$layer.self_attn.q_proj $attention $hidden"
	echo "$layer.self_attn.k_proj $cache $hidden"
	echo "$layer.self_attn.v_proj $cache $hidden"
	echo "$layer.self_attn.o_proj $hidden $attention"
	for n in ${norms:+q k}; do echo "$layer.self_attn.${n}_norm $norms"; done
	echo "$layer.post_attention_layernorm $hidden"
	[ $experts -eq 0 ] || echo "$layer.mlp.gate $experts $hidden"
	e=0
	while [ $e -lt $experts ] || [ $e -eq 0 ]; do
		mlp=$layer.mlp
		[ $experts -eq 0 ] || mlp=$mlp.experts.$e
		echo "$mlp.gate_proj $width $hidden"
		echo "$mlp.up_proj $width $hidden"
		echo "$mlp.down_proj $hidden $width"
		e=$((e + 1))
	done
	echo "model.norm $hidden"
	echo "lm_head 32 $hidden"
} | perl -e '
	my ($at, $state, @t, @h) = (0, 1);
	while (<STDIN>) {
		my ($name, @shape) = split;
		my $n = 1;
		$n *= $_ for @shape;
		push @t, [$n, @shape > 1 ? $name =~ /embed/ ? 1 : 2 / sqrt $shape[1] : 0];
		push @h, sprintf q("%s.weight":{"dtype":"BF16","shape":[%s],"data_offsets":[%d,%d]}), $name, join(",", @shape),
			$at, $at + 2 * $n;
		$at += 2 * $n;
	}
	my $header = "{" . join(",", @h) . "}";
	$header .= " " x (-length($header) % 8);
	binmode STDOUT;
	print pack("Q<", length $header), $header;
	my @noise = map { $state = ($state * 1664525 + 1013904223) & 0xffffffff; $state / 2 ** 31 - 1 } 1 .. 100003;
	my %block;
	for my $t (@t) {
		my ($n, $scale) = @$t;
		$block{$scale} //= pack "S<*", map { unpack("L<", pack "f<", $scale ? $_ * $scale : 1) >> 16 } @noise;
		for (my $left = 2 * $n; $left > 0; $left -= length $block{$scale}) {
			print $left >= length $block{$scale} ? $block{$scale} : substr $block{$scale}, 0, $left;
		}
	}' >"$tmp/model/model.safetensors"

awk -v n="${TOKENS:-2048}" 'BEGIN {
	for (i = 0; i < n; i++) {
		x = (x * 1103 + 12345 + int(i / 64)) % 65536
		s = s (i % 512 ? ", " : "") int(x / 2048)
		if (i % 512 == 511 || i == n - 1) { print "{\"input_ids\": [" s "]}"; s = "" }
	}
}' >"$tmp/ids"
[ -e "$tmp/w/plan.json" ] || "$bin/llmc-shard" -C "$tmp/w" -m "$tmp/model" -d "$tmp/ids" -s "${SCHEME:-W4A16}" -q
"$bin/llmc" pipeline -C "$tmp/w" -q ${THREADS:+-j $THREADS} >"$tmp/tasks"
"$bin/llmc-report" -C "$tmp/w" --phases --replay "$ranks" --tokens $((${SAMPLES:-512} * ${LENGTH:-2048})) \
	--link "${LINK:-10}" --latency "${LATENCY:-20}"
