#!/bin/sh
# On a machine with an NVIDIA GPU: check the CUDA backend, measure it, write one report file
#
#   share/cuda-report.sh [BUILD [check|bench|all]]     build (made if it is not there), all; writes cuda-report.txt
#
# Exits 0 if all checks passed, 69 if there is no GPU or no toolkit. Send the file as it is.
set -u
cd "${0%/*}/.." || exit 71
build=${1:-build}
what=${2:-all}
report=${REPORT:-cuda-report.txt}
demo=share/demo
so=$build/lib/llmc-cuda.so
bad=0

say()
{
	printf '%s\n' "$*" | tee -a "$report"
}

part()
{
	say ''
	say "== $*"
}

try()   # NAME COMMAND...
{
	name=$1
	shift
	if "$@" >"$report.part" 2>&1; then
		say "ok   $name"
	else
		say "FAIL $name, exit status $?"
		bad=1
		cat "$report.part" >>"$report"
	fi
	rm -f "$report.part"
}

# One run of all stages; prints modules and losses.
stages()    # BACKEND DIR SCHEME [FRAMES]
{
	b="$build/bin"
	rm -rf "$2"
	"$b/llmc-shard" -C "$2" -m "$demo" -s "$3" -d "$demo/calib.jsonl" -n 128 -l 256 -q >"$2.plan" || return
	"$b/llmc-calib" -C "$2" -q --backend "$1" --frames "${4:-shm}" 2>"$2.said" |
	    "$b/llmc-hessian" -C "$2" -q --backend "$1" 2>>"$2.said" | "$b/llmc-gptq" -C "$2" -q --backend "$1" >"$2.tsv"
	t_rc=$?
	cat "$2.said"
	[ "$t_rc" -eq 0 ] && [ -z "$(find "$2/weights" -type l)" ]
}

ranks()     # COMM DIR
{
	"$build/bin/llmc" run "$demo" -s W4A16 -d "$demo/calib.jsonl" -n 128 -l 256 --ranks 2 --comm "$1" -C "$2" --keep -q \
	    -o "$2.out" && grep -q "\"$1\"" "$2"/log/llmc-hessian*
}

as_good()   # DIR DIR
{
	paste "$1.tsv" "$2.tsv" | awk -F '\t' '{ a += $3; b += $9 } END {
	    printf "losses %g (cpu) %g (cuda)\n", a, b
	    exit !(NR > 0 && a > 0 && (a - b) * (a - b) < 1e-4 * a * a) }'
}

digest()    # DIR
{
	(cd "$1/weights" && find . -type f | sort | xargs sha256sum)
}

same()      # DIR DIR
{
	digest "$1" >"$1.sum" && digest "$2" >"$2.sum" && cmp "$1.sum" "$2.sum"
}

checks()
{
	tmp=$(mktemp -d) || exit 71
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 1' HUP INT TERM
	part 'every operation against ref and cpu'
	try 'test-cuda' env LLMC_CUDA="$so" "$build/t/test-cuda"
	try 'test-cuda-forward' env LLMC_CUDA="$so" "$build/t/test-cuda-forward"
	part 'whole runs of the demo model'
	for s in W4A16 NVFP4A16; do
		try "$s on the cpu" stages cpu "$tmp/cpu.$s" "$s"
		try "$s on the device" stages cuda "$tmp/one.$s" "$s"
		try "$s again" stages cuda "$tmp/two.$s" "$s"
		try "$s: the same bytes twice" same "$tmp/one.$s" "$tmp/two.$s"
		try "$s with frames on the device" stages cuda "$tmp/frames.$s" "$s" cuda
		try "$s: nobody says why they are not" [ ! -s "$tmp/frames.$s.said" ]
		try "$s: the same bytes" same "$tmp/one.$s" "$tmp/frames.$s"
		try "$s: as good as on the cpu" as_good "$tmp/cpu.$s" "$tmp/one.$s"
		as_good "$tmp/cpu.$s" "$tmp/one.$s" >>"$report" 2>&1
	done
	if [ -r "$build/lib/llmc-nccl.so" ] && command -v mpirun >/dev/null && [ "$(nvidia-smi -L | wc -l)" -gt 1 ]; then
		part 'two ranks, a device each'
		try 'sums by MPI' ranks mpi "$tmp/mpi"
		try 'sums by NCCL' ranks nccl "$tmp/nccl"
		try 'the same bytes' same "$tmp/mpi" "$tmp/nccl"
	else
		say 'NCCL not run: it takes two GPUs, MPI and llmc-nccl.so'
	fi
	part 'compute-sanitizer'
	if command -v compute-sanitizer >/dev/null 2>&1; then
		for t in memcheck racecheck initcheck synccheck; do
			try "$t" env LLMC_CUDA="$so" LLMC_TEST_SMALL=1 compute-sanitizer --tool "$t" --error-exitcode 9 \
			    "$build/t/test-cuda"
		done
	else
		say 'not installed: not run'
	fi
}

bench()
{
	part 'speed'
	LLMC_CUDA="$so" "$build/t/bench-cuda" -j "$(nproc)" >"$report.part" 2>&1 || bad=1
	tee -a "$report" <"$report.part"
	part 'share of the peak of each kernel (ncu)'
	if command -v ncu >/dev/null 2>&1; then
		LLMC_CUDA="$so" ncu --section SpeedOfLight --section Occupancy --launch-count 60 \
		    "$build/t/bench-cuda" -t 0.01 >"$report.part" 2>&1 || say 'ncu failed (counters may need permission)'
		cat "$report.part" >>"$report"
	else
		say 'not installed: not measured'
	fi
	rm -f "$report.part"
}

command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1 || {
	echo 'cuda-report: no NVIDIA GPU here (nvidia-smi does not find one)' >&2
	exit 69
}
make -s -j"$(nproc)" B="$build" all "$build/t/test-cuda" "$build/t/test-cuda-forward" "$build/t/bench-cuda" || exit
[ -r "$so" ] || {
	echo "cuda-report: $so was not built: is nvcc installed?" >&2
	exit 69
}
: >"$report"
part 'machine'
date -u | tee -a "$report"
uname -srm | tee -a "$report"
"$build/bin/llmc-gptq" --version 2>&1 | tee -a "$report"
git describe --always --dirty 2>/dev/null | tee -a "$report"
nvcc --version 2>/dev/null | tail -n 2 | tee -a "$report"
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,pcie.link.gen.max,pcie.link.width.max \
    --format=csv | tee -a "$report"
case $what in
check) checks ;;
bench) bench ;;
*) checks; bench ;;
esac
say ''
[ "$bad" -eq 0 ] && say 'all passed' || say 'something failed, see above'
echo "written to $report"
exit "$bad"
