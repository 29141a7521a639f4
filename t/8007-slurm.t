#!/bin/sh
# the Slurm recipes by Slurm: a cluster of our own on this machine, in a directory, without munge
#
# SLURM_ROOT names a directory into which the packages slurmctld, slurmd, slurm-client and slurm-wlm-basic-plugins were
# unpacked (dpkg-deb -x), where they are not installed.
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

slurm=${SLURM_ROOT:-}
PATH=$PATH:$slurm/usr/bin:$slurm/usr/sbin:/usr/sbin
program() {
    command -v "$1" || command -v "$1-wlm"
}
ctld=$(program slurmctld) && d=$(program slurmd) && stepd=$(program slurmstepd) && command -v sbatch >/dev/null &&
    command -v srun >/dev/null || skip_all 'no Slurm'
plugins=$(find "$slurm/usr/lib" /usr/lib -type d -name 'slurm*' 2>/dev/null | while read -r p; do
    [ ! -e "$p/auth_none.so" ] || { echo "$p"; break; }
done)
[ -n "$plugins" ] || skip_all 'no plugins of Slurm'
[ -z "$slurm" ] || { LD_LIBRARY_PATH=$plugins:${plugins%/*} && export LD_LIBRARY_PATH; }

# --- the cluster ---

here=$PWD node=$(uname -n) port=$((20000 + $$ % 20000))
mkdir -p state/ctld state/d
cat >slurm.conf <<EOC
ClusterName=llmc
SlurmctldHost=$node(127.0.0.1)
AuthType=auth/none
CredType=cred/none
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$here/state/ctld
SlurmdSpoolDir=$here/state/d
SlurmctldPidFile=$here/state/ctld.pid
SlurmdPidFile=$here/state/d.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
PluginDir=$plugins
NodeName=$node NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOC
SLURM_CONF=$here/slurm.conf
export SLURM_CONF
end_cluster() {
    kill $d_pid $ctld_pid 2>/dev/null
    wait $d_pid $ctld_pid 2>/dev/null
    cd / && if [ "${KEEP:-}" = 1 ]; then echo "# kept $here"; else rm -rf "$t_base"; fi
}
"$ctld" -D -f slurm.conf >ctld.log 2>&1 &
ctld_pid=$!
"$d" -D -f slurm.conf -d "$stepd" >d.log 2>&1 &
d_pid=$!
trap end_cluster EXIT
waited=0
until timeout 5 sinfo -h -o %t 2>/dev/null | grep -q '^idle'; do
    waited=$((waited + 1))
    [ $waited -le 60 ] && kill -0 $d_pid $ctld_pid 2>/dev/null ||
        skip_all "Slurm does not start here: $(tail -qn 1 ctld.log d.log | tr '\n' ' ')"
    sleep 0.5
done

# --- the recipes ---

recipes=$root/share/recipes
ids 64 5 >ids
short small
llmc run small -s W4A16 -d ids -o good -q >/dev/null

submit() {  # OUT, options of sbatch: waits for the job
    s_out=$1
    shift
    env MODEL="$here/small" DATA="$here/ids" OUT="$here/$s_out" START=60 timeout 120 sbatch -W -o "$s_out.%A.%a.log" "$@"
}
starts() {  # DIR of work: rank, ranks and where from, of each llmc-gptq
    sed -n 's/.*"event": "start".*"ranks": \([0-9]*\), "rank_from": "\([^"]*\)".*/\1 \2/p' "$1"/log/llmc-gptq.*
}

ok 'srun gives ranks' '[ "$(timeout 60 srun -n 3 sh -c "echo \$SLURM_PROCID" | sort | tr "\n" " ")" = "0 1 2 " ]'
ok 'the batch script: three ranks by files' '
    COMM=files submit batch -n 3 -c 1 "$recipes/slurm.sh" || { cat batch.*.log; exit 1; }
    diff -r good batch
    [ "$(starts batch.work)" = "$(printf "3 SLURM_PROCID\n3 SLURM_PROCID\n3 SLURM_PROCID")" ]
'
ok 'a work directory of other ranks, of which a part is done, goes on' '
    llmc-shard -C again.work -m small -s W4A16 -d ids --ranks 1 -q
    llmc-calib -C again.work -s 0 -q | llmc-hessian -C again.work -q | llmc-gptq -C again.work -q >out 2>&1 || :
    [ -n "$(find again.work/weights -type f)" ] && [ -n "$(find again.work/weights -type l)" ]
    COMM=files submit again -n 2 -c 2 "$recipes/slurm.sh" || { cat again.*.log; exit 1; }
    diff -r good again
'
ok 'the job array: four tasks of one each' '
    submit array --array=0-3 -c 1 "$recipes/array.sh" || { cat array.*.log; exit 1; }
    diff -r good array
    [ "$(starts array.work | sort -u)" = "4 options" ] && [ "$(starts array.work | grep -c .)" -eq 4 ]
'
ok 'an array that begins with 1' '
    submit one --array=1-2 -c 1 "$recipes/array.sh" || { cat one.*.log; exit 1; }
    diff -r good one
'

done_testing
