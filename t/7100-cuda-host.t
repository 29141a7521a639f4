#!/bin/sh
# the cuda backend through whole stages, on the host: t/cuda-host stands in for CUDA, cuBLAS and cuSOLVER
. "${0%/*}/lib.sh"
many_runs
. "$data/mk/demo.sh"
. "$data/mk/arch.sh"

host=$build/t/llmc-cuda-host.so
unset LLMC_CUDA LLMC_CUDA_HOST LLMC_CUDA_FAIL LLMC_CUDA_MEMORY

# --- where there is no device ---

ids 64 12 >ids
short two
llmc-shard -C p -m two -s W4A16 -g 32 -d ids -q
llmc-shard -C w4 -m two -s W4A16 -g 32 --sequential none -d ids -q
llmc-shard -C nv -m two -s NVFP4A16 --sequential none -d ids -q

fails 69 'a backend that is not built is unavailable' 'LLMC_CUDA=none.so llmc-gptq -C p --backend cuda </dev/null 2>err'
ok 'and says so in one line' 'oneline err && grep -q "not here: no none.so" err'
ok 'programs do not link CUDA' '
    for f in "$build"/bin/llmc-*; do ldd "$f"; done >libs
    ! grep "libcu[dbs]\|nvidia" libs
'
if [ -r "$build/lib/llmc-cuda.so" ] && ! [ -e /dev/nvidiactl ]; then
    fails 69 'the real one without a device is unavailable' 'llmc-gptq -C p --backend cuda </dev/null 2>err'
    ok 'and says so in one line' 'oneline err && grep -q "no CUDA device" err'
    ok 'the log says that the CPU does the work and why' '
        llmc-gptq -C p -n >/dev/null
        grep -hc "\"note\": *\"cuda is built, but there is no NVIDIA driver here\"" p/log/llmc-gptq*.jsonl
    '
    ok 'so does --version' 'llmc-gptq --version | grep -q "cuda (no NVIDIA driver here)"'
else
    skip 'the real one without a device' 'not built, or there is a device'
fi
if ! [ -r "$host" ]; then
    skip 'stages on the stand-in' 'no C++ compiler has built it'
    done_testing
fi
export LLMC_CUDA="$host"
ok '--version says whether the backend is built' '
    llmc-gptq --version | grep -q ", cuda.*CUDA yes"
    LLMC_CUDA=none.so llmc-gptq --version | grep -q "CUDA no"
'
fails 69 'no device at all' 'LLMC_CUDA_FAIL=device:1+ llmc-gptq -C p --backend cuda </dev/null 2>err'
ok 'in the words of the library' 'oneline err && grep -q "no CUDA device: no CUDA-capable device is detected" err'

# --- whole runs ---

run() {     # PLAN NEW CALIB HESSIAN GPTQ [option ...]: the backend of each stage
    t_plan=$1 t_new=$2 t_calib=$3 t_hessian=$4 t_gptq=$5
    shift 5
    rm -rf "$t_new" && cp -a "$t_plan" "$t_new" || return
    llmc-calib -C "$t_new" -q --backend "$t_calib" "$@" | llmc-hessian -C "$t_new" -q --backend "$t_hessian" "$@" |
        llmc-gptq -C "$t_new" -q --backend "$t_gptq" "$@" >"$t_new.tsv" || return
    [ -z "$(find "$t_new/weights" -type l)" ]
}

# Codes that differ between two runs, one line a module: name, count, how many differ.
differ() {
    (cd "$1/weights" && find . -type f -name "*.safetensors" | sort) | perl -e '
        sub codes {
            local $/;
            open my $f, "<:raw", $_[0] or die "$_[0]: $!";
            my $d = <$f>;
            my $n = unpack "Q<", $d;
            my ($from, $to) = substr($d, 8, $n) =~ /"[^"]*weight_packed":\{[^}]*"data_offsets":\[(\d+),(\d+)\]/
                or die "$_[0]: no codes";
            return unpack "H*", substr $d, 8 + $n + $from, $to - $from;
        }
        while (<STDIN>) {
            chomp;
            my ($x, $y) = (codes("$ARGV[0]/weights/$_"), codes("$ARGV[1]/weights/$_"));
            my $same = ($x ^ $y) =~ tr/\0//;
            print "$_\t", length $x, "\t", length($x) - $same, "\n";
        }' "$1" "$2"
}

# Modules that match PATTERN; SHARE of a thousand codes may differ.
close_to() {    # RUN RUN PATTERN SHARE
    differ "$1" "$2" | grep "$3" >codes
    awk -F "\t" -v share="$4" "{ all += \$2; bad += \$3 } END {
        print bad \" of \" all \" codes differ\"
        exit !(NR > 0 && bad * 1000 <= all * share) }" codes || { cat codes; false; }
}

# The sum of losses of one run is that of the other within a hundredth.
as_good() {     # RUN RUN
    paste "$1.tsv" "$2.tsv" | awk -F "\t" "{ a += \$3; b += \$9 } END {
        print a, b
        exit !(a > 0 && (a - b) * (a - b) < 1e-4 * a * a) }"
}

# Stages are compared one by one. Given the same Hessians, codes are equal but for the factor's last bits; given the same
# inputs, but for the Hessians' too; with the forward pass, whose products and attention differ in the last bit of bf16,
# the first layer's, whose inputs are the same, are still. Hessians are those of the original model: were later modules
# to see the codes of earlier ones, one code would change all behind it, as it does from one cpu run to another.
for s in w4 nv; do
    name=$([ $s = w4 ] && echo W4A16 || echo NVFP4A16)
    ok "$name on the cpu backend" "run $s $s.cpu cpu cpu cpu"
    ok 'GPTQ through the CUDA code: codes are equal' "run $s $s.gptq cpu cpu cuda; close_to $s.cpu $s.gptq . 0.2"
    ok 'and the Hessians: nearly so' "run $s $s.hess cpu cuda cuda; close_to $s.cpu $s.hess . 10"
    ok 'and the forward pass: the same loss' "
        run $s $s.cuda cuda cuda cuda
        close_to $s.cpu $s.cuda 'layers.0.self_attn.[qkv]' 1
        as_good $s.cpu $s.cuda
    "
done
ok 'modules that see the codes before them' '
    run p p.cpu cpu cpu cpu
    run p p.cuda cuda cuda cuda
    as_good p.cpu p.cuda
'
weights p.cuda >want
ok 'work done at once instead of late, threads from the last to the first: the same bytes' '
    LLMC_CUDA_HOST=now,down run p now cuda cuda cuda
    weights now | diff want -
'
ok 'little device memory: the same bytes' '
    run p little cuda cuda cuda --device-memory 128M
    weights little | diff want -
'

# --- another model: MODEL=DIR, its first two layers ---

first() {   # NEW CALIB HESSIAN GPTQ: the backend of each stage
    rm -rf "$1" && cp -a other "$1" || return
    llmc-calib -C "$1" -q --backend "$2" -m 'model.layers.[01].*' | llmc-hessian -C "$1" -q --backend "$3" |
        llmc-gptq -C "$1" -q --backend "$4" -m 'model.layers.[01].*' >"$1.tsv"
    [ "$(find "$1/weights" -type f | wc -l)" -gt 1 ]
}

if [ -n "${MODEL:-}" ]; then
    llmc-shard -C other -m "$MODEL" -s W4A16 -g 64 --sequential none -d "$demo/calib.jsonl" -n 8 -l 128 -q
    ok "$MODEL on the cpu backend" 'first o.cpu cpu cpu cpu'
    ok 'GPTQ through the CUDA code: codes are equal' 'first o.gptq cpu cpu cuda; close_to o.cpu o.gptq . 1'
    ok 'and the Hessians: nearly so' 'first o.hess cpu cuda cuda; close_to o.cpu o.hess . 10'
    ok 'and the forward pass: the same loss' '
        first o.cuda cuda cuda cuda
        close_to o.cpu o.cuda "layers.0.self_attn.[qkv]" 1
        as_good o.cpu o.cuda'
fi

# --- several modules in one launch ---

family stacked moe 's/ BF16 4 / BF16 16 /'
sed 's/"num_local_experts": 4/"num_local_experts": 16/' moe/config.json >c && mv c moe/config.json
tokens 24 24 >moe.ids
llmc-shard -C moe.p -m moe -s W4A16 -g 16 -d moe.ids -n 24 -l 24 -q
llmc-calib -C moe.p -q | llmc-hessian -C moe.p -q --keep | llmc-gptq -C moe.p -q >moe.tsv

again() {   # THREADS
    rm -f count
    LLMC_CUDA_COUNT=$PWD/count llmc-gptq -C moe.p -q --again --backend cuda -j "$1" </dev/null >"moe.$1" &&
        awk -F '\t' '{ print $5 }' count >"launches.$1" && weights moe.p >"weights.$1"
}

ok 'small modules of one shape in one launch: the same bytes' '
    again 1 && again 4 && diff weights.1 weights.4
    [ "$(cut -f 1-4 moe.1 | sort)" = "$(cut -f 1-4 moe.4 | sort)" ]
    cat launches.1 launches.4
    [ $(($(cat launches.4) * 2)) -lt "$(cat launches.1)" ]
'

# --- frames on the device ---

frames() {  # NEW WAY CALIB HESSIAN [VARIABLE=VALUE of llmc-hessian]: the first step's sums; what is said in NEW.err
    rm -rf "$1" && cp -a p "$1" || return
    LLMC_CUDA_COUNT=$PWD/$1.count llmc-calib -C "$1" -q -s 0 --backend "$3" --frames "$2" 2>"$1.err" |
        env $5 LLMC_CUDA_COUNT="$PWD/$1.count" llmc-hessian -C "$1" -q --keep --backend "$4" >/dev/null 2>>"$1.err" &&
        (cd "$1/hessian" && sha256sum */*)
}

ok 'modules that see the codes before them, frames on the device: the same bytes' '
    rm -rf f && cp -a p f
    llmc-calib -C f -q --backend cuda --frames cuda | llmc-hessian -C f -q --backend cuda |
        llmc-gptq -C f -q --backend cuda >f.tsv
    weights f | diff want -
'
frames shm shm cuda cuda >sums
frames shm.cpu shm cuda cpu >sums.cpu
ok 'frames on the device: the sums are the same, and nobody copies a frame' '
    frames f cuda cuda cuda | diff sums - && ! [ -s f.err ]
    awk -F "\t" "/calib/ { back = \$3; inside = \$4 } /hessian/ { to = \$2 }
        END { exit !(back == 0 && inside > 300000 && to < 10000) }" f.count || { cat f.count; false; }
'
ok 'the same at once' 'LLMC_CUDA_HOST=now frames f cuda cuda cuda | diff sums -'
ok 'a reader that is on the cpu: shared memory, and one line says so' '
    frames f cuda cuda cpu | diff sums.cpu -
    oneline f.err && grep -q "llmc-hessian: .*no device memory; frames come through shared memory" f.err
'
ok 'a writer that is: the same' '
    frames f cuda cpu cuda >/dev/null
    oneline f.err && grep -q "llmc-calib: .*no device memory; frames go through shared memory" f.err
'
ok 'handles that the writer cannot make' '
    LLMC_CUDA_FAIL=ipc:2 frames f cuda cuda cuda | diff sums -
    oneline f.err && grep -q "CUDA: .*; frames go through shared memory" f.err
'
ok 'handles that the reader cannot open' '
    frames f cuda cuda cuda LLMC_CUDA_FAIL=ipc:2 | diff sums -
    oneline f.err && grep -q "CUDA: .*; frames come through shared memory" f.err
'
fails 69 'a reader that fails while frames are under way ends both' '
    rm -rf f && cp -a p f
    { llmc-calib -C f -q --timeout 60 --backend cuda --frames cuda || echo $? >calib.status; } |
        LLMC_CUDA_FAIL=gemm:1 llmc-hessian -C f -q --backend cuda >/dev/null 2>err
'
ok 'with one line' 'oneline err && [ "$(cat calib.status)" -ne 0 ]'

# --- failures ---

weights p.cpu >cpu.want
ok 'no device memory to be had: the host does it all, with the bytes of the cpu backend' '
    LLMC_CUDA_FAIL=malloc:2+ run p none cuda cuda cuda
    weights none | diff cpu.want -
'
ok 'no pinned memory: the same' '
    LLMC_CUDA_FAIL=pinned:1+ run p none cuda cuda cuda
    weights none | diff cpu.want -
'
ok 'memory that fails once changes where, not whether' 'LLMC_CUDA_FAIL=malloc:9 run p once cuda cuda cuda'

cp -a p q
llmc-calib -C q -s 0 >x
llmc-hessian -C q --keep <x | sed 's,q/,w/,' >tasks
rm -rf w; cp -a q w
llmc-gptq -C w --backend cuda -m '*.0.self_attn.[qkv]*' <tasks >/dev/null
mv w good

for f in launch:1 launch:4 copy:1 copy:7 potrf:1; do
    fails 69 "$f fails: the tool says so" "
        rm -rf w; cp -a q w
        LLMC_CUDA_FAIL=$f llmc-gptq -C w --backend cuda -m '*.0.self_attn.[qkv]*' <tasks >out 2>err
    "
    ok 'in the words of the library, leaving nothing half written' '
        grep -q "CUDA: \|cuSOLVER: " err
        [ -z "$(find w -name "*.tmp.*")" ]
        for m in $(find w/weights -type f); do cmp $m good/${m#w/}; done
    '
    ok 'and the next run goes on' "
        llmc-gptq -C w --backend cuda -m '*.0.self_attn.[qkv]*' <tasks >out
        for m in q k v; do
            cmp w/weights/model.layers.0.self_attn.\${m}_proj.safetensors \
                good/weights/model.layers.0.self_attn.\${m}_proj.safetensors
        done
    "
done
for f in launch:1 gemm:1 copy:5; do
    fails 69 "llmc-calib: $f fails" "
        rm -rf w; cp -a p w
        LLMC_CUDA_FAIL=$f llmc-calib -C w --backend cuda -s 1 >out 2>err
    "
    ok 'and it says so' 'oneline err && grep -q "CUDA: \|cuBLAS: " err'
done

done_testing
