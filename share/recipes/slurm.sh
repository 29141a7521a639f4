#!/bin/sh
#SBATCH --job-name=llmc
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=8
#SBATCH --signal=USR1@300
# slurm.sh - ranks by srun:  MODEL=m DATA=d OUT=o sbatch slurm.sh
#
# SCHEME and SHARD are further options; the directories must be on a file system that all nodes see. With --mpi=pmix and
# llmc built for it ranks meet by MPI, else by files: COMM=files asks for that. Five minutes
# before its time is over the job is told to finish what it is at; it then ends with 75 and is submitted again, with as
# many tasks as one likes.
set -eu
work=${WORK:-$OUT.work}

# shellcheck disable=SC2086
llmc-shard -C "$work" -m "$MODEL" -s "${SCHEME:-W4A16}" -d "$DATA" --ranks "$SLURM_NTASKS" --replan ${SHARD:-}
# shellcheck disable=SC2086
srun ${SRUN:-} llmc pipeline -C "$work" -j "${SLURM_CPUS_PER_TASK:-1}" ${COMM:+--comm "$COMM"}
llmc-pack -C "$work" -o "$OUT"
