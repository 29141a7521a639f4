#!/bin/sh
#SBATCH --job-name=llmc
#SBATCH --array=0-3
#SBATCH --cpus-per-task=8
# array.sh - ranks as a job array, without MPI:  MODEL=m DATA=d OUT=o sbatch array.sh
#
# Every task is a rank; all must run at the same time, and wait START seconds for each other. The first makes the plan,
# and the checkpoint when all is done. A task that is requeued, or the whole array again, goes on.
set -eu
work=${WORK:-$OUT.work}
rank=$((SLURM_ARRAY_TASK_ID - ${SLURM_ARRAY_TASK_MIN:-0}))
ranks=$SLURM_ARRAY_TASK_COUNT
start=${START:-3600}

if [ "$rank" -eq 0 ]; then
	rm -f "$work/planned.$SLURM_ARRAY_JOB_ID"
	# shellcheck disable=SC2086
	llmc-shard -C "$work" -m "$MODEL" -s "${SCHEME:-W4A16}" -d "$DATA" --ranks "$ranks" --replan ${SHARD:-}
	: >"$work/planned.$SLURM_ARRAY_JOB_ID"
fi
waited=0
until [ -e "$work/planned.$SLURM_ARRAY_JOB_ID" ]; do
	[ $waited -lt "$start" ] || { echo "array.sh: rank 0 has made no plan within $start seconds" >&2; exit 75; }
	sleep 1
	waited=$((waited + 1))
done
llmc pipeline -C "$work" --comm files --rank "$rank" --ranks "$ranks" --timeout "$start" -j "${SLURM_CPUS_PER_TASK:-1}"
[ "$rank" -eq 0 ] || exit 0
while [ -n "$(find "$work/weights" -type l)" ]; do # the others' last tasks
	[ $waited -lt $((2 * start)) ] || { echo 'array.sh: other ranks have left modules' >&2; exit 75; }
	sleep 1
	waited=$((waited + 1))
done
llmc-pack -C "$work" -o "$OUT"
