#!/bin/sh
# the examples of share/recipes make what llmc run makes
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

recipes=$root/share/recipes
ids 64 5 >ids
short small
llmc run small -s W4A16 -d ids -o good -q >/dev/null || exit 1

ok 'pipeline.mk, step by step' '
    make -s -f "$recipes/pipeline.mk" MODEL=small DATA=ids OUT=made >log 2>&1 || { cat log; exit 1; }
    diff -r good made && [ "$(ls made.work/hessian | wc -l)" -eq 8 ]
'
ok 'and one step again' '
    rm -rf made
    make -s -f "$recipes/pipeline.mk" MODEL=small DATA=ids OUT=made >log 2>&1 && diff -r good made
'
if llmc-hessian --version | grep -q "MPI yes" && command -v mpirun >/dev/null; then
    ok 'mpirun.sh' '
        no_leak_check
        MPIRUN="--allow-run-as-root --oversubscribe" timeout 120 "$recipes/mpirun.sh" 2 small ids mpi -s W4A16 >log
        diff -r good mpi
    '
    ok 'mpirun.sh with directories of each rank' '
        no_leak_check
        MPIRUN="--allow-run-as-root --oversubscribe" SCRATCH=own timeout 120 "$recipes/mpirun.sh" 3 small ids scratch \
            -s W4A16 >log
        diff -r good scratch && [ "$(ls own | tr "\n" " ")" = "0 1 2 " ]
    '
else
    skip 'mpirun.sh' 'no MPI'
fi
ok 'array.sh, as Slurm starts it' '
    for i in 1 2 3; do
        env SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$i SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_COUNT=3 SLURM_PROCID=0 \
            MODEL=small DATA=ids OUT=array START=60 "$recipes/array.sh" >log.$i 2>&1 &
    done
    wait
    cat log.*
    diff -r good array
'
ok 'slurm.sh, by an srun of our own' '
    mkdir bin
    cat >bin/srun <<-"EOF"
	#!/bin/sh
	r=0
	while [ $r -lt "$SLURM_NTASKS" ]; do
	    SLURM_PROCID=$r "$@" &
	    pids="${pids:-} $!" r=$((r + 1))
	done
	for p in $pids; do wait "$p" || rc=$?; done
	exit ${rc:-0}
	EOF
    chmod +x bin/srun
    env PATH="$PWD/bin:$PATH" SLURM_NTASKS=3 SLURM_CPUS_PER_TASK=1 MODEL=small DATA=ids OUT=slurm \
        "$recipes/slurm.sh" >log 2>&1 || { cat log; exit 1; }
    diff -r good slurm
'
if command -v sbatch >/dev/null && timeout 5 sinfo -h >/dev/null 2>&1; then
    ok 'slurm.sh, by Slurm' '
        env MODEL="$PWD/small" DATA="$PWD/ids" OUT="$PWD/real" sbatch -W -n 2 -c 1 "$recipes/slurm.sh"
        diff -r good real
    '
else
    skip 'slurm.sh, by Slurm' 'no Slurm'
fi

done_testing
