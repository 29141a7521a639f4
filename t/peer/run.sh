#!/bin/sh
# run.sh BUILD [DIR] - the fixtures of t/data against the libraries that made them, then DIR, a compressed checkpoint,
# loaded in transformers and compared weight by weight. ORIGINAL=dir: what DIR was made from. PYTHON: 3.11 or later.
# The Python environment is made in BUILD/peer-venv when it is missing (about 6 GB).
set -eu
peer=${0%/*}
[ $# -ge 1 ] || { echo "usage: run.sh BUILD [DIR]" >&2; exit 64; }
. "$peer/env.sh"
dir=${2-}

"$venv/bin/python" "$peer/check_fixtures.py" "$peer/../data"
if [ -z "$dir" ]; then
    echo "no DIR given: no checkpoint was checked"
elif [ -n "${ORIGINAL-}" ]; then
    "$venv/bin/python" "$peer/check_load.py" "$dir" --original "$ORIGINAL"
else
    "$venv/bin/python" "$peer/check_load.py" "$dir"
fi
