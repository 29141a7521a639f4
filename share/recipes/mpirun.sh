#!/bin/sh
# mpirun.sh - ranks by MPI:  mpirun.sh RANKS MODEL DATA OUT [option of llmc-shard ...]
#
# WORK (default OUT.work) must be on a file system that all hosts see; MPIRUN may hold options, such as --hostfile.
# Run again with the same or another number of ranks, it goes on. Without such a file system: the same llmc-shard line on
# every host first, then this with SCRATCH, a directory of each host's own for its ranks to work in.
set -eu
[ $# -ge 4 ] || { sed -n '2,6s/^# *//p' "$0" >&2; exit 64; }
ranks=$1 model=$2 data=$3 out=$4
shift 4
work=${WORK:-$out.work}

llmc-shard -C "$work" -m "$model" -d "$data" --ranks "$ranks" --replan "$@"
# A rank that is bound to one processor has one thread.
# shellcheck disable=SC2086
mpirun --bind-to none -n "$ranks" ${MPIRUN:-} llmc pipeline -C "$work" ${THREADS:+-j "$THREADS"} \
	${SCRATCH:+--scratch "$SCRATCH"}
llmc-pack -C "${SCRATCH:-$work}${SCRATCH:+/0}" -o "$out"
