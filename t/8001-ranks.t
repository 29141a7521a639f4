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

# The digests of a checkpoint, into which tasks that are cut differently go.
out() {     # DIR of work
    rm -rf out && llmc-pack -C "$1" -o out -q >/dev/null && (cd out && sha256sum ./*)
}

# --- sums ---

plan one 1 -s W4A16 -g 32
llmc-calib -C one -q | llmc-hessian -C one -q | llmc-gptq -C one -q >one.out
out one >one.sums
ok 'one rank is through' '[ "$(grep -c . one.sums)" -ge 4 ] && [ -z "$(find one/weights -type l)" ]'

for n in 2 3 4; do
    ok "$n ranks by files" "plan f$n $n -s W4A16 -g 32 && files f$n $n && out f$n | diff one.sums -"
    with_mpi "$n ranks by MPI" "plan m$n $n -s W4A16 -g 32 && mpi m$n $n && out m$n | diff one.sums -"
done
ok 'more ranks than blocks, by files' 'plan f11 11 -s W4A16 -g 32 && files f11 11 && out f11 | diff one.sums -'
with_mpi 'more ranks than blocks, by MPI' 'plan m11 11 -s W4A16 -g 32 && mpi m11 11 && out m11 | diff one.sums -'

# --- rows ---

# Every file of the output, also with what is cut by rows
for s in W4A16_ASYM NVFP4A16; do
    plan $s 1 -s $s && llmc pipeline -C $s -q >/dev/null
    out $s >$s.good
    for c in "2 1" "3 2"; do
        n=${c% *} j=${c#* }
        ok "$s: $n ranks of $j threads, by files" "
            plan $s.$n $n -s $s && grep -q '@[0-9]' $s.$n/tasks.tsv
            files $s.$n $n -j $j && out $s.$n | diff $s.good -
        "
        rm -rf $s.$n
    done
    with_mpi "$s: 4 ranks, by MPI" "plan $s.4 4 -s $s && mpi $s.4 4 && out $s.4 | diff $s.good -"
done
ok 'one scale for all rows is not cut' '
    cat >tensor.yaml <<-"EOF"
	q_stage:
	  q_modifiers:
	    GPTQModifier:
	      ignore: [lm_head]
	      config_groups:
	        g:
	          targets: [Linear]
	          weights: {num_bits: 8, type: int, symmetric: true, strategy: tensor}
	EOF
    llmc-shard -C t3 -m small -r tensor.yaml -d ids --ranks 3 -q
    ! grep -q @ t3/tasks.tsv
'
for mode in layer none; do
    ok "--sequential $mode: 3 ranks, by files" "
        plan s1$mode 1 -s W4A16 -g 32 --sequential $mode && llmc pipeline -C s1$mode -q >/dev/null
        plan s3$mode 3 -s W4A16 -g 32 --sequential $mode && files s3$mode 3
        out s1$mode >s1.sums && out s3$mode | diff s1.sums -
    "
    with_mpi "--sequential $mode: 2 ranks, by MPI" "
        plan s2$mode 2 -s W4A16 -g 32 --sequential $mode && mpi s2$mode 2 && out s2$mode | diff s1.sums -
    "
done

# --- launches ---

# What tells a rank that has died early from one of an earlier launch
job() {     # DIR: the one word that the signs of its ranks end with
    awk 'NF != 5 { exit 1 } { print $5 }' "$1"/ranks/[0-9] | sort -u
}
with_mpi 'ranks of an MPI job know that they are, and of no other' '
    job s2layer >l && job s2none >n && cat l n
    [ "$(grep -c . l)" -eq 1 ] && [ "$(grep -c . n)" -eq 1 ] && ! cmp -s l n
'
ok 'ranks that llmc starts do as well' '
    rm -rf out && llmc run small -s W4A16 -g 32 -d ids -o out -C r2 --ranks 2 --comm files -q >/dev/null
    job r2 >l && cat l && [ "$(grep -c . l)" -eq 1 ]
'

# --- another number of ranks ---

stopped() {     # DIR RANKS: killed at the 3rd weight that rank 1 publishes
    plan "$1" "$2" -s W4A16 -g 32
    r=0
    while [ $r -lt "$2" ]; do
        spec='rename:3:KILL:*weights/*'
        [ $r -eq 1 ] || spec='rename:9999:KILL:*'
        { llmc-calib -C "$1" --rank $r --ranks "$2" -q | llmc-hessian -C "$1" --rank $r --ranks "$2" -q --timeout 20 |
            faulty "$spec" llmc-gptq -C "$1" --rank $r --ranks "$2" -q >"$1.$r"; } 2>"$1.lost.$r" &
        r=$((r + 1))
    done
    wait
    left=$(find "$1/weights" -type l | wc -l)
    done=$(find "$1/weights" -type f | wc -l)
    echo "$left left, $done done"
    cat "$1".lost.*
    [ "$left" -gt 0 ] && [ "$done" -gt 3 ]
}
for c in '3 2' '2 4' '4 1'; do
    ok "stopped with ${c% *} ranks, through with ${c#* }" "
        rm -rf k; stopped k ${c% *}
        llmc-shard -C k --replan --ranks ${c#* }
        [ \"\$(find k/weights -type l | wc -l)\" -ge \$left ] || [ ${c#* } -lt ${c% *} ]
        files k ${c#* }
        out k | diff one.sums -
    "
done
ok 'who is lost is named' 'cat k.lost.*; grep -q "^llmc-hessian.0.: rank 1: " k.lost.0'
ok 'a rank whose calib is killed between two steps does not keep the others' '
    plan k2 2 -s W4A16 -g 32
    rc=0
    for r in 0 1; do
        [ $r -eq 1 ] && only="-s 0" || only=
        { llmc-calib -C k2 --rank $r --ranks 2 -q $only |
            llmc-hessian -C k2 --rank $r --ranks 2 -q | llmc-gptq -C k2 --rank $r --ranks 2 -q >k2.$r; } 2>k2.lost.$r &
    done
    wait
    cat k2.lost.*
    grep -q "^llmc-hessian.0.: rank 1: has ended before the others" k2.lost.0
'
fails 75 'no replan while a rank is at work' '
    plan busy 2 -s W4A16 -g 32
    sleep 20 | timeout 20 llmc-hessian -C busy --rank 0 --ranks 2 -q >/dev/null 2>&1 &
    until [ -s busy/ranks/0 ]; do sleep 0.01; done
    rc=0
    llmc-shard -C busy --replan --ranks 3 2>err || rc=$?
    kill $! $(cut -d" " -f2 busy/ranks/0) || :
    grep -q "rank 0: process .* is at work" err
    exit $rc
'
ok 'a replan that was killed is done again' '
    plan again 1 -s W4A16 -g 32
    n=1
    while :; do
        rm -rf r && cp -a again r
        faulty "rename:$n:KILL:*" llmc-shard -C r --replan --ranks 3 && break
        llmc-shard -C r --replan --ranks 3
        [ "$(find r/weights -type l | wc -l)" -eq "$(($(wc -l <r/tasks.tsv) - 1))" ]
        n=$((n + 1))
    done 2>/dev/null
    [ $n -gt 2 ] && files r 3 && out r | diff one.sums -
'
fails 65 'a plan whose replan did not end says so' '
    rm -rf r && cp -a again r
    faulty "rename:4:KILL:*" llmc-shard -C r --replan --ranks 3 2>/dev/null || :
    llmc-gptq -C r --rank 0 --ranks 1 </dev/null 2>err
' && :
ok 'and how to go on' 'oneline err && grep -q replan err'

# --- llmc run ---

llmc run small -s W4A16 -g 32 -d ids -o run1 -q >/dev/null
ok 'llmc run --ranks 3 --comm files' '
    llmc run small -s W4A16 -g 32 -d ids -o run3 -q --ranks 3 --comm files >/dev/null
    diff -r run1 run3 && [ ! -e run3.work ]
'
with_mpi 'llmc run --ranks 2 --comm mpi' '
    no_leak_check
    llmc run small -s W4A16 -g 32 -d ids -o run2 -q --ranks 2 --comm mpi >/dev/null && diff -r run1 run2
'
ok 'what --show prints does the same' '
    llmc run small -s W4A16 -g 32 -d ids -o shown -q --ranks 2 --comm files --show >show.sh
    sh show.sh && diff -r run1 shown
'
ok 'it goes on with another number of ranks' '
    plan=$(llmc run small -s W4A16 -g 32 -d ids -o more -q --ranks 3 --comm files --show | head -n 1)
    eval "$plan"
    llmc-calib -C more.work -s 0 --rank 0 --ranks 3 -q >/dev/null
    llmc run small -s W4A16 -g 32 -d ids -o more -q --ranks 2 --comm files >/dev/null && diff -r run1 more
'
fails 64 'no ranks' 'llmc run small -s W4A16 -d ids -o none --ranks 0 2>err'
ok 'are refused in one line' 'oneline err'
fails 64 'an unknown way to meet' 'llmc run small -s W4A16 -d ids -o none --ranks 2 --comm pigeon 2>err'
ok 'is refused in one line' 'oneline err'

# --- prediction ---

ok 'a plan for several numbers of ranks' '
    llmc-shard -m small -s W4A16 -d ids --block-tokens 64 --plan --ranks 1,2,4,64 >out.tsv
    head -n 1 out.tsv | grep -q "^# 576 tokens; a rank of"
    awk -F "\t" "NR == 2 { if (NF != 11) exit 1; next }
        NR > 2 { if (NF != 11 || \$2 < 0 || \$11 > 1.001 || \$9 <= 0 || \$8 < \$9) exit 1; eff[\$1] = \$11 }
        END { exit !(eff[1] == 1 && eff[2] > eff[64]) }" out.tsv
'
ok 'without data, for samples of full length' '
    llmc-shard -m small -s W4A16 -n 10 -l 100 --plan --ranks 2 >out.tsv && grep -q "^# 1000 tokens" out.tsv
'
ok 'and nothing is written' '[ ! -e plan.json ] && [ ! -e weights ]'
fails 64 'one number for a plan that is made' 'llmc-shard -C x -m small -s W4A16 -d ids --ranks 1,2 2>err'
ok 'is wanted in one line' 'oneline err && [ ! -e x ]'
for n in 0 -1 two 1, 1,,2; do
    fails 64 "no ranks: $n" "llmc-shard -C x -m small -s W4A16 -d ids --plan --ranks $n 2>err"
done

# --- merge ---

plan h1 1 -s W4A16 -g 32
llmc-calib -C h1 -q -s 0 --again | llmc-hessian -C h1 -q --again --keep >h1.out
head -n 4 ids >ids4
tail -n 5 ids >ids5
llmc-shard -C h4 -m small -d ids4 --block-tokens 64 -s W4A16 -g 32 -q
llmc-shard -C h5 -m small -d ids5 --block-tokens 64 -s W4A16 -g 32 -q
for h in h4 h5; do llmc-calib -C $h -q -s 0 | llmc-hessian -C $h -q --keep >$h.out; done
ok 'merge adds up Hessians of separate runs' '
    llmc-hessian merge m.safetensors h4/hessian/0/attn.safetensors h5/hessian/0/attn.safetensors
    perl -e "
        sub get { open F, q(<), shift; binmode F; local \$/; \$_ = <F>; my \$n = unpack q(Q<), \$_;
            my \$h = substr \$_, 8, \$n; \$h =~ /sum\"[^}]*data_offsets\":\s*\[(\d+),\s*(\d+)/ or die;
            (\$h, unpack q(d<*), substr \$_, 8 + \$n + \$1, \$2 - \$1) }
        (\$h, @a) = get q(m.safetensors); (\$g, @b) = get q(h1/hessian/0/attn.safetensors);
        \$h =~ /rows\":\s*\"576\"/ && \$h =~ /sequences\":\s*\"9\"/ or die \$h;
        @a == @b or die;
        for (0 .. \$#a) { \$d += (\$a[\$_] - \$b[\$_]) ** 2; \$s += \$b[\$_] ** 2 }
        die \$d / \$s if \$d > 1e-12 * \$s || \$s == 0"
'
ok 'in any order the same bytes' '
    h5=h5/hessian/0/attn.safetensors
    llmc-hessian merge n.safetensors h4/hessian/0/attn.safetensors $h5 $h5
    llmc-hessian merge m.safetensors m.safetensors h5/hessian/0/attn.safetensors
    cmp m.safetensors n.safetensors
'
fails 65 'not of different width' '
    llmc-calib -C h4 -q -s 3 --again | llmc-hessian -C h4 -q --keep --again >h4.out
    llmc-hessian merge x.safetensors h4/hessian/0/attn.safetensors h4/hessian/3/down.safetensors 2>err
'
ok 'which is said' 'oneline err && grep -q "down.safetensors: Hessians of 256 and 768" err && [ ! -e x.safetensors ]'

# --- launchers ---

from() {    # VARIABLE=VALUE ...: where rank and number of ranks come from
    rm -rf b/log && env "$@" llmc-gptq -C b -q </dev/null 2>err || :
    cat err
    sed -n 's/.*"rank": \([0-9]*\),.*"event": "start".*"ranks": \([0-9]*\), "rank_from": "\([^"]*\)".*/\1 \2 \3/p' \
        b/log/llmc-gptq.*
}
plan b 3 -s W4A16 -g 32
ok 'rank and ranks are those of Open MPI' '
    [ "$(from OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=3 SLURM_PROCID=1 SLURM_NTASKS=3 | tail -n 1)" = \
        "2 3 OMPI_COMM_WORLD_RANK" ]
'
ok 'of Slurm' '[ "$(from SLURM_PROCID=1 SLURM_NTASKS=3 | tail -n 1)" = "1 3 SLURM_PROCID" ]'
ok 'of a job array, whose step has one task' '
    [ "$(from SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=1 |
        tail -n 1)" = "2 3 SLURM_ARRAY_TASK_ID" ]
'

done_testing
