#!/bin/sh
# several ranks write the bytes of one, whichever way they meet
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

ids 64 9 >ids
short small

plan() {    # DIR RANKS [option ...]
    p_dir=$1 p_ranks=$2
    shift 2
    llmc-shard -C "$p_dir" -m small -d ids --block-tokens 64 --ranks "$p_ranks" -q "$@"
}

# All ranks of DIR as pipelines of this shell; the messages of rank R in DIR.err.R.
files() {   # DIR RANKS [option of all ...]
    f_dir=$1 f_ranks=$2
    shift 2
    f_pids=
    r=0
    while [ $r -lt "$f_ranks" ]; do
        { llmc-calib -C "$f_dir" --rank $r --ranks "$f_ranks" -q "$@" |
            llmc-hessian -C "$f_dir" --rank $r --ranks "$f_ranks" -q "$@" |
            llmc-gptq -C "$f_dir" --rank $r --ranks "$f_ranks" -q "$@"; } >"$f_dir.out.$r" 2>"$f_dir.err.$r" &
        f_pids="$f_pids $!"
        r=$((r + 1))
    done
    f_rc=0
    for pid in $f_pids; do
        wait "$pid" || f_rc=$?
    done
    cat "$f_dir".err.*
    return $f_rc
}

mpi() {     # DIR RANKS
    timeout 60 mpirun --allow-run-as-root --oversubscribe --bind-to none -n "$2" \
        sh -c "llmc-calib -C $1 -q | llmc-hessian -C $1 -q | llmc-gptq -C $1 -q" >"$1.out"
}

case $(llmc-hessian --version) in
*'MPI yes'*) command -v mpirun >/dev/null && have_mpi=1 || have_mpi= ;;
*) have_mpi= ;;
esac

with_mpi() {    # name script
    if [ -n "$have_mpi" ]; then ok "$1" "$2"; else skip "$1" 'no MPI'; fi
}

# --- sums ---

plan one 1 -s W4A16 -g 32
llmc-calib -C one -q | llmc-hessian -C one -q | llmc-gptq -C one -q >one.out
weights one >good
ok 'one rank is through' '[ "$(grep -c . good)" -eq 14 ] && ! grep -q link good'

for n in 2 3 4; do
    ok "$n ranks by files" "plan f$n $n -s W4A16 -g 32 && files f$n $n && weights f$n | diff good -"
    with_mpi "$n ranks by MPI" "plan m$n $n -s W4A16 -g 32 && mpi m$n $n && weights m$n | diff good -"
done
ok 'more ranks than blocks, by files' 'plan f11 11 -s W4A16 -g 32 && files f11 11 && weights f11 | diff good -'
with_mpi 'more ranks than blocks, by MPI' 'plan m11 11 -s W4A16 -g 32 && mpi m11 11 && weights m11 | diff good -'

done_testing
