#!/bin/sh
# --comm nccl on the host: t/cuda-host stands in for CUDA and NCCL
. "${0%/*}/lib.sh"
many_runs
. "$data/mk/demo.sh"
no_leak_check

host=$build/t/llmc-nccl-host.so
unset LLMC_NCCL LLMC_CUDA_HOST LLMC_CUDA_FAIL
case $(llmc-hessian --version) in
*'MPI yes'*) command -v mpirun >/dev/null && mpi=yes || mpi= ;;
*) mpi= ;;
esac
if [ -z "$mpi" ] || ! [ -r "$host" ]; then
    skip 'sums between devices' 'no MPI, or no C++ compiler has built the stand-in'
    done_testing
fi

ids 64 9 >ids
short small

plan() {    # DIR RANKS
    rm -rf "$1"
    llmc-shard -C "$1" -m small -s W4A16 -g 32 -d ids --block-tokens 64 --ranks "$2" -q
}

ranks() {   # DIR RANKS [option of llmc-hessian ...]: all stages under mpirun
    r_dir=$1 r_ranks=$2
    shift 2
    timeout 60 mpirun --allow-run-as-root --oversubscribe --bind-to none -n "$r_ranks" sh -c "
        llmc-calib -C $r_dir -q --timeout 20 | llmc-hessian -C $r_dir -q --timeout 20 $* | llmc-gptq -C $r_dir -q" >"$r_dir.out" 2>err
}

whole() {   # DIR
    rm -rf out && llmc-pack -C "$1" -o out -q >/dev/null && (cd out && sha256sum ./*)
}

fails 69 'without its shared object it is unavailable' '
    plan w 1
    LLMC_NCCL=none.so mpirun --allow-run-as-root -n 1 llmc-hessian -C w --comm nccl </dev/null 2>err'
ok 'and says so' 'grep -q "communicator .nccl. is not here: no none.so" err'
ok '--version says whether it is there' '
    LLMC_NCCL=none.so llmc-hessian --version | grep -q "NCCL no"
    LLMC_NCCL=$host llmc-hessian --version | grep -q ", nccl; .*NCCL yes"
'
export LLMC_NCCL="$host"
fails 64 'it needs an MPI launcher' 'llmc-hessian -C w --comm nccl </dev/null 2>err'

plan one 1
llmc pipeline -C one -q >/dev/null
whole one >want
for n in 2 3 11; do
    ok "$n ranks" "plan w $n && ranks w $n --comm nccl && whole w | diff want -"
done
ok 'the log names it' 'grep -hc "\"communicator\".*\"nccl\"" w/log/llmc-hessian*.jsonl'
ok 'work done at once instead of late: the same bytes' '
    plan w 3 && LLMC_CUDA_HOST=now ranks w 3 --comm nccl && whole w | diff want -'

# One of the ranks in trouble: all end, within the time limit, and the next run goes on.
for f in nccl:3 copy:2 malloc:1 pinned:2 device:1; do
    ok "$f fails on one rank" "
        plan w 2
        ! timeout 60 mpirun --allow-run-as-root --oversubscribe --bind-to none -n 2 sh -c '
            [ \$OMPI_COMM_WORLD_RANK = 0 ] || export LLMC_CUDA_FAIL=$f
            llmc-calib -C w -q --timeout 20 | llmc-hessian -C w -q --timeout 20 --comm nccl | llmc-gptq -C w -q' >said 2>err
        grep -q 'CUDA\|NCCL' err
    "
    ok 'and the next run goes on' 'ranks w 2 --comm nccl && whole w | diff want -'
done

done_testing
