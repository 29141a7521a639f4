#!/bin/sh
# the same bytes whatever the ranks, their threads and how they meet, and after a stop and a change of ranks
#
# Here a short matrix; MATRIX=full is all of it, MODEL=DIR another model than the demo's (make torture-ranks).
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"
many_runs
. "$data/mk/arch.sh"
. "$data/mk/ranks.sh"

# Wide enough for modules that are cut by rows.
family qwen3_moe moe 's/ 64/ 256/g; s/ 32/ 128/g; s/ 16/ 64/g; s/ 48/ 192/g'
sed 's/\("\(hidden\|vocab\)_size"\): 32/\1: 128/; s/\("\(head_dim\|moe_intermediate_size\)"\): 16/\1: 64/
    s/\("intermediate_size"\): 48/\1: 192/' from.qwen3_moe/config.json >moe/config.json
tokens 7 60 >moe.ids
if [ -n "${MODEL:-}" ]; then
    ln -s "$MODEL" dense
    ln -s "$demo/calib.jsonl" dense.ids
else
    short dense
    ids 64 7 >dense.ids
fi

# Seven samples, a block each: no number of ranks but one divides them.
plan() {    # DIR MODEL SCHEME RANKS
    rm -rf "$1"
    group=
    [ "$3" != W4A16 ] || group='-g 64'
    # shellcheck disable=SC2086
    llmc-shard -C "$1" -m "$2" -d "$2.ids" -n 7 -l 128 --block-tokens 64 -s "$3" $group --ranks "$4" -q
}

sums() {    # DIR of work: every file of its checkpoint
    rm -rf out && llmc-pack -C "$1" -o out -q >/dev/null && (cd out && sha256sum ./*) && rm -rf "$1" out
}

through() { # MODEL SCHEME RANKS THREADS COMM
    plan w "$1" "$2" "$3" && launch "$5" w "$3" -j "$4" && sums w | diff "$1.$2.sums" -
}

resumed() { # MODEL SCHEME RANKS COMM RANKS COMM: killed when some weights are done and some are not
    plan w "$1" "$2" "$3"
    if [ -n "${MODEL:-}" ] && [ "$1" = dense ]; then
        begin "$4" w "$3" -j 1
        until [ -n "$(find w/weights -type f)" ]; do
            running || { cat launched; return 1; }
            sleep 2
        done
        end_all
    else # by the clock it would be a matter of luck
        export LLMC_FAIL='rename:3:KILL:*weights/*' LD_PRELOAD="$build/t/fail.so"
        begin "$4" w "$3" -j 1
        unset LLMC_FAIL LD_PRELOAD
        finish && return 1
        end_all
    fi
    left=$(find w/weights -type l | wc -l)
    echo "$left tasks left of $(($(wc -l <w/tasks.tsv) - 1))"
    [ "$left" -gt 0 ] || return 1
    llmc-shard -C w --replan --ranks "$5" && launch "$6" w "$5" -j 1 && sums w | diff "$1.$2.sums" -
}

case ${MATRIX:-} in
full)
    all='1x1 1x2 2x1 2x2 3x1 3x2 4x1 4x2 8x1 8x2'
    stops='3:mpi:2:files 2:files:4:mpi 4:mpi:1:files 1:files:3:mpi 8:files:3:files' ;;
*)
    all='3x2 8x1'
    stops='3:files:2:files' ;;
esac
comms="files${have_mpi:+ mpi}"

for model in dense moe; do
    for scheme in W4A16 NVFP4A16; do
        ok "$model, $scheme: one rank of one thread" "
            plan one $model $scheme 1 && launch files one 1 -j 1 && [ -z \"\$(find one/weights -type l)\" ]
            [ \"\$(grep -c . one/blocks.tsv)\" -eq 8 ]
            sums one >$model.$scheme.sums && [ \"\$(grep -c . $model.$scheme.sums)\" -ge 4 ]
        "
        for c in $all; do
            for comm in $comms; do
                ok "$model, $scheme: ${c%x*} ranks of ${c#*x} threads, $comm" \
                    "through $model $scheme ${c%x*} ${c#*x} $comm"
            done
        done
        for c in $stops; do
            first=${c%:*:*} then=${c#*:*:}
            case $have_mpi:$c in
            :*mpi*) skip "$model, $scheme: $c" 'no MPI' ;;
            *)
                ok "$model, $scheme: ${first%:*} ranks by ${first#*:} killed, ${then%:*} by ${then#*:} go on" \
                    "resumed $model $scheme ${first%:*} ${first#*:} ${then%:*} ${then#*:}" ;;
            esac
        done
    done
done

done_testing
