# env.sh - sourced with $peer, this directory, and $1, the build directory: makes BUILD/peer-venv when it is missing
# (about 6 GB; PYTHON: 3.11 or later) and sets $venv
venv=${VENV:-$1/peer-venv}
export HF_HUB_OFFLINE=1
if [ -z "${VENV-}" ] && [ ! -e "$venv/complete" ]; then
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install -q -r "$peer/requirements.txt"
    : >"$venv/complete"
fi
