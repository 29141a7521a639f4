# ranks.sh - ranks as processes that tests can kill; source it after lib.sh
#
#   have_mpi                        not empty: there is MPI
#   launch COMM DIR RANKS [option ...]  all ranks of DIR, each as llmc pipeline with these options; waits
#   begin COMM DIR RANKS [option ...]   the same in the background; messages in the file "launched"
#   running                         it is
#   finish                          waits for it
#   end_all                         kills all of its processes
#   processes [RANK [STAGE]]        pids of them, one a line

case $(llmc-hessian --version) in
*'MPI yes'*) command -v mpirun >/dev/null && have_mpi=1 || have_mpi= ;;
*) have_mpi= ;;
esac

# A session of its own, so that all of its processes can be found.
begin() {
    r_comm=$1 r_dir=$2 r_ranks=$3
    shift 3
    if [ "$r_comm" = mpi ]; then
        ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}" setsid mpirun --allow-run-as-root --oversubscribe --bind-to none \
            -n "$r_ranks" llmc pipeline -C "$r_dir" --comm mpi -q "$@" </dev/null >launched 2>&1 &
    else
        # shellcheck disable=SC2016
        LLMC_RUN="$$.$(date +%s%N)" setsid sh -c '
            dir=$1 ranks=$2
            shift 2
            r=0
            while [ $r -lt "$ranks" ]; do
                llmc pipeline -C "$dir" --comm files -q --rank $r --ranks "$ranks" "$@" &
                pids="${pids:-} $!" r=$((r + 1))
            done
            for p in $pids; do wait "$p" || rc=$?; done
            exit ${rc:-0}' sh "$r_dir" "$r_ranks" "$@" </dev/null >launched 2>&1 &
    fi
    r_pid=$!
}

finish() {
    wait "$r_pid" || { r_rc=$?; cat launched; return $r_rc; }
}

launch() {
    begin "$@"
    finish
}

running() {
    kill -0 "$r_pid" 2>/dev/null
}

processes() {
    for r_stat in /proc/[0-9]*/stat; do
        r_p=${r_stat%/stat}
        # shellcheck disable=SC2046
        set -- "${1-}" "${2-}" $(sed 's/.*) //' "$r_stat" 2>/dev/null)
        [ "${6-}" = "$r_pid" ] && [ "$3" != Z ] || continue
        case $1: in
        :) ;;
        *)
            tr '\0' '\n' <"$r_p/environ" 2>/dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$1" ||
                tr '\0' ' ' <"$r_p/cmdline" 2>/dev/null | grep -q -e "--rank $1 " || continue ;;
        esac
        case ${2:-} in
        '') ;;
        *) grep -qx "llmc-$2" "$r_p/comm" 2>/dev/null || continue ;;
        esac
        echo "${r_p#/proc/}"
    done
}

end_all() {
    kill -9 -- "-$r_pid" 2>/dev/null || :
    while r_all=$(processes) && [ -n "$r_all" ]; do
        # shellcheck disable=SC2086
        kill -9 $r_all 2>/dev/null || :
    done
    wait "$r_pid" 2>/dev/null || :
}
