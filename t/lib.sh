# lib.sh - tests that speak TAP; source it first:  . "${0%/*}/lib.sh"
#
#   ok 'name' 'script'           passes if the script, run in a subshell under set -e, exits 0
#   fails CODE 'name' 'script'   passes if it exits with CODE
#   same ['name'] A B            passes if the files are equal; with GOLDEN=1 an A in $golden is rewritten from B
#   skip 'name' 'why'            counts as passed; skip_all 'why' leaves the whole file
#   many_runs                    leaves the file under sanitizers: what it runs so often, other tests run under them
#   done_testing                 last line
# and for use inside scripts:
#   oneline FILE                 FILE is one line, "llmc...: ..."
#   faulty SPEC command ...      runs it under t/fail.c
#   no_leak_check                what follows may leak: MPI libraries do, and sanitizers would say so
#
# Every file runs in a directory of its own, removed at the end unless KEEP=1. BUILD names another build directory
# (build/san). $root, $build, $data and $golden are absolute.

root=$(cd "${0%/*}/.." && pwd) || exit 1
export LSAN_OPTIONS="suppressions=$root/t/lsan.supp:print_suppressions=0"
case ${BUILD:=build} in
/*) build=$BUILD ;;
*) build=$root/$BUILD ;;
esac
data=$root/t/data
golden=$root/t/golden
PATH=$build/bin:$PATH
LC_ALL=C
export PATH LC_ALL root build data golden
unset LLMC_FAIL OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE PMIX_NAMESPACE PMIX_RANK PMIX_SIZE PMI_RANK PMI_SIZE SLURM_PROCID \
    SLURM_NTASKS SLURM_ARRAY_TASK_ID SLURM_ARRAY_TASK_COUNT SLURM_ARRAY_TASK_MIN
umask 022

t_name=${0##*/}
t_count=0
t_failed=0
t_base=$(mktemp -d "${TMPDIR:-/tmp}/${t_name%.t}.XXXXXX") || exit 1
mkdir "$t_base/w" && cd "$t_base/w" || exit 1
trap 'cd / && if [ "${KEEP:-}" = 1 ]; then echo "# kept $t_base/w"; else rm -rf "$t_base"; fi' EXIT
trap 'exit 1' HUP INT TERM

t_result() {    # status name
    t_count=$((t_count + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $t_count - $2"
    else
        t_failed=$((t_failed + 1))
        echo "not ok $t_count - $2"
        { echo "# $t_name: not ok $t_count - $2"; sed 's/^/# /' "$t_base/log"; } >&2 # prove -q shows this, too
    fi
}

t_expect() {    # code name script
    (set -e; eval "$3") </dev/null >"$t_base/log" 2>&1
    t_rc=$?
    [ "$t_rc" -eq "$1" ] || printf 'exit status %d, want %d, from:\n%s\n' "$t_rc" "$1" "$3" >>"$t_base/log"
    [ "$t_rc" -eq "$1" ]
    t_result $? "$2"
}

ok() {
    t_expect 0 "$1" "$2"
}

no_leak_check() {
    export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}"
}

fails() {
    t_expect "$1" "$2" "$3"
}

same() {
    [ $# -eq 3 ] || set -- "${2##*/} is as expected" "$@"
    case ${GOLDEN:-}$2 in
    "1$golden"/*) cp "$3" "$2" ;;
    esac
    if cmp "$2" "$3" >"$t_base/log" 2>&1; then
        t_result 0 "$1"
    else
        diff -u "$2" "$3" 2>&1 | head -n 20 >>"$t_base/log"
        t_result 1 "$1"
    fi
}

skip() {
    t_result 0 "$1 # SKIP $2"
}

skip_all() {
    echo "1..0 # SKIP $1"
    exit 0
}

many_runs() {
    case $build in
    */san) [ -n "${LLMC_TEST_LONG:-}" ] || skip_all 'many runs of the same; LLMC_TEST_LONG=1 has them here, too' ;;
    esac
}

oneline() {
    [ "$(wc -l <"$1")" -eq 1 ] && grep -Eq '^llmc[a-z-]*(\[[0-9]+\])?: .' "$1" && return
    echo "want one line that starts with the tool's name, $1 is:"
    cat "$1"
    return 1
}

faulty() {      # a sanitizer that is linked in must not mind being loaded after us
    t_spec=$1
    shift
    LLMC_FAIL=$t_spec LD_PRELOAD=$build/t/fail.so ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-} "$@"
}

done_testing() {
    echo "1..$t_count"
    [ "$t_failed" -eq 0 ]
    exit
}
