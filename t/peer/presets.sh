#!/bin/sh
# presets.sh BUILD OUT [MODEL [DATA]] - a checkpoint in OUT for every preset, by plain rounding and by GPTQ, of MODEL
# (default: share/demo, with its calibration data). For run.sh, which loads them. Integer groups of 128 that do not
# divide MODEL's widths become groups of 64, and the blocks of FP8_BLOCK 64 x 64. What is there already stays.
set -eu
here=$(cd "${0%/*}" && pwd)
[ $# -ge 2 ] || { echo "usage: presets.sh BUILD OUT [MODEL [DATA]]" >&2; exit 64; }
llmc=$1/bin/llmc out=$2 model=${3:-$here/../../share/demo} data=${4:-$here/../../share/demo/calib.jsonl}
mkdir -p "$out"

blocks() {  # rtn or gptq: FP8_BLOCK, but for its sizes
    [ "$1" = gptq ] && modifier=GPTQModifier || modifier=QuantizationModifier
    cat <<E
quant_stage:
  quant_modifiers:
    $modifier:
      ignore: [lm_head]
      config_groups:
        group_0:
          targets: [Linear]
          weights: {num_bits: 8, type: float, strategy: block, block_structure: [64, 64]}
          input_activations: {num_bits: 8, type: float, strategy: group, group_size: 64, dynamic: true}
E
}

for recipe in "$here"/../../share/recipes/*.yaml; do
    name=$(basename "$recipe" .yaml | tr a-z A-Z)
    for algorithm in rtn gptq; do
        dir=$out/$name-$algorithm
        [ -e "$dir" ] && continue
        set -- run "$model" -s "$name" -a "$algorithm" -d "$data" -n "${SAMPLES:-8}" -l 128 -q
        if ! "$llmc" "$@" -o "$dir" >"$out/log" 2>&1; then
            if grep -q 'not a multiple of group size 128' "$out/log"; then
                set -- "$@" -g 64
            elif grep -q "not a multiple of the inputs' group size 128" "$out/log"; then
                blocks "$algorithm" >"$out/blocks.yaml"
                shift 6
                set -- run "$model" -r "$out/blocks.yaml" "$@"
            else
                cat "$out/log" >&2
                exit 1
            fi
            "$llmc" "$@" -o "$dir" >"$out/log" 2>&1 || { cat "$out/log" >&2; exit 1; }
        fi
        echo "$dir"
    done
done
