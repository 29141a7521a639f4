#!/bin/sh
# run.sh BUILD [DIR] - the fixtures of t/data against the libraries that made them, then DIR, a compressed checkpoint,
# loaded in transformers and compared weight by weight. ORIGINAL=dir: what DIR was made from; without DIR, every preset
# by plain rounding and by GPTQ of it (default: share/demo) in BUILD/presets. PYTHON: 3.11 or later.
# The Python environment is made in BUILD/peer-venv when it is missing (about 6 GB).
set -eu
peer=${0%/*}
[ $# -ge 1 ] || { echo "usage: run.sh BUILD [DIR]" >&2; exit 64; }
. "$peer/env.sh"
dir=${2-}

"$venv/bin/python" "$peer/check_fixtures.py" "$peer/../data"
if [ -z "$dir" ]; then
    original=${ORIGINAL:-$peer/../../share/demo}
    rm -rf "$1/presets"
    "$peer/presets.sh" "$1" "$1/presets" "$original"
    "$venv/bin/python" "$peer/check_load.py" "$1"/presets/*-rtn "$1"/presets/*-gptq --original "$original"
elif [ -n "${ORIGINAL-}" ]; then
    "$venv/bin/python" "$peer/check_load.py" "$dir" --original "$ORIGINAL"
else
    "$venv/bin/python" "$peer/check_load.py" "$dir"
fi
