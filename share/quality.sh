#!/bin/sh
# What a scheme costs: share/quality.sh BUILD MODEL CALIB EVAL [SCHEME[:GROUP] ...]
#
# For each scheme: perplexity after plain rounding, GPTQ with the scales of largest magnitudes (as LLM Compressor has
# it), GPTQ with searched scales (our default), and the same with --correct; activations rounded as at run time. A
# tab-separated table on stdout.
# Results already in OUT (default: a directory that is removed) are kept. SAMPLES, LENGTH, WINDOWS, DTYPE, THREADS as below.
set -eu
bin=$1/bin model=$2 calib=$3 eval=$4
shift 4
[ $# -gt 0 ] || set -- W4A16:64 W8A8 FP8_DYNAMIC NVFP4A16 NVFP4 MXFP4A16 MXFP4
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
: "${OUT:=$tmp}"
mkdir -p "$OUT"

ppl()
{
	"$bin/llmc-eval" -q -m "$1" -d "$eval" --dtype "${DTYPE:-bfloat16}" -l "${LENGTH:-512}" -w "${WINDOWS:-40}" ${THREADS:+-j $THREADS} | cut -f2
}

# NAME, then the options of a run: its perplexity
one()
{
	name=$1
	shift
	if [ ! -s "$OUT/$name.ppl" ]; then
		"$bin/llmc" run "$model" "$@" -d "$calib" -n "${SAMPLES:-64}" -l "${LENGTH:-512}" -o "$OUT/$name" -q \
			${THREADS:+-j $THREADS} >"$OUT/$name.log"
		ppl "$OUT/$name" >"$tmp/ppl"
		mv "$tmp/ppl" "$OUT/$name.ppl"
		rm -rf "${OUT:?}/$name"
	fi
	cat "$OUT/$name.ppl"
}

printf 'scheme\tplain rounding\tGPTQ, minmax\tGPTQ, imatrix_mse\t--correct\n'
printf 'original\t%s\t\t\t\n' "$(ppl "$model")"
for s; do
	scheme=${s%%:*} group=
	[ "$s" = "$scheme" ] || group="-g ${s#*:}"
	file=$(echo "$s" | tr : -)
	rtn=$(one "$file.rtn" -s "$scheme" $group -a rtn)
	gptq=$(one "$file.gptq" -s "$scheme" $group --observer minmax)
	search=$(one "$file.search" -s "$scheme" $group)
	printf '%s\t%s\t%s\t%s\t%s\n' "$s" "$rtn" "$gptq" "$search" "$(one "$file.correct" -s "$scheme" $group --correct)"
done
