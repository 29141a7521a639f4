#!/bin/sh
# models in tars, read where they lie
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

ids 64 8 >ids
short small
cp "$demo/tokenizer.json" "$demo/tokenizer_config.json" "$demo/generation_config.json" small
opts="-g 32 -q"
tar -cf small.tar small
(cd small && tar -cf ../flat.tar .)
tar --format=pax --pax-option=exthdr.name=%d/x/%f,comment=longer -cf pax.tar small
tar --format=gnu -cf gnu.tar small
mkdir -p deep/$(printf 'd%.0s' $(seq 120))
cp -r small deep/d*/
tar -C deep -cf long.tar .
llmc run small -s W4A16 -a rtn $opts -o good -C w >/dev/null
sed 's/"model": .*//' good/provenance.json >good.prov

same_as_good() {
    for f in good/*; do
        case $f in */provenance.json) ;; *) cmp "$f" "$1/${f#*/}" || return 1 ;; esac
    done
    sed 's/"model": .*//' "$1/provenance.json" | diff good.prov -
}

for t in small flat pax gnu long; do
    ok "llmc run $t.tar" "rm -rf out v; llmc run $t.tar -s W4A16 -a rtn $opts -o out -C v >/dev/null && same_as_good out"
done
ok 'nothing was unpacked' '[ -z "$(find v -name "model*.safetensors" ! -name "model.layers*")" ] && clean none'
ok 'the plan is that of the directory' '
    rm -rf v && llmc-shard -C v -m small.tar -s W4A16 -a rtn $opts
    grep -o "\"fingerprint\": *\"[^\"]*\"" w/plan.json >a
    grep -o "\"fingerprint\": *\"[^\"]*\"" v/plan.json | diff a -'
ok 'with data, through all stages' '
    llmc run small -s W4A16 -d "$demo/calib.jsonl" -n 8 -l 64 $opts -o dir.out >/dev/null
    llmc run small.tar -s W4A16 -d "$demo/calib.jsonl" -n 8 -l 64 $opts -o tar.out >/dev/null
    cmp dir.out/model.safetensors tar.out/model.safetensors'
ok 'and from a tar into a tar' 'rm -rf v; llmc run small.tar -s W4A16 -a rtn $opts -o x.tar -C v >/dev/null && mkdir x && tar -C x -xf x.tar && same_as_good x'
ok 'the result in a tar is checked' 'llmc pack --check x.tar --against small.tar'
ok 'and made dense' 'llmc pack --dequantize x.tar -o d1 -q >/dev/null && llmc pack --dequantize good -o d2 -q >/dev/null && cmp d1/model.safetensors d2/model.safetensors'
ok 'and evaluated' '
    llmc eval -m good -d "$demo/eval.jsonl" -l 64 -q >a
    llmc eval -m x.tar -d "$demo/eval.jsonl" -l 64 -q >b
    [ -s a ] && sed "s/x[.]tar/good/" b | diff a -'
ok 'shards and their index' '
    rm -rf cut && llmc pack -C w -o cut --shard-size 40K -q >/dev/null && tar -cf cut.tar cut
    llmc pack --check cut.tar --against small'
ok 'the work directory links to the tar' '
    rm -rf v && llmc-shard -C v -m small.tar -s W4A16 -a rtn $opts
    for f in v/weights/*; do [ "$(readlink -f "$f")" = "$(readlink -f small.tar)" ] || { readlink "$f"; exit 1; }; done'

refused_tar() { # code name pattern
    rm -rf v out
    t_code=$1 t_pattern=$3 t_tar=$4
    ok "$2" '
        rc=0
        llmc-shard -C v -m "$t_tar" -s W4A16 -a rtn $opts 2>err || rc=$?
        cat err
        echo "exit status $rc, want $t_code"
        [ "$rc" -eq "$t_code" ] && oneline err && grep -q "$t_pattern" err && [ ! -e v/plan.json ]'
}

zstd -q small.tar -o small.tar.zst && gzip -k small.tar && xz -k small.tar
for z in zst gz xz; do
    refused_tar 65 "one compressed by $z" 'is compressed.*decompress it' small.tar.$z
done
head -c 300000 small.tar >short.tar
refused_tar 65 'one that is cut' 'short.tar' short.tar
echo hello >text.tar
refused_tar 65 'what is no tar' 'neither a directory nor a tar' text.tar
: >empty.tar
refused_tar 65 'an empty file' 'empty.tar' empty.tar
mkdir -p linked && ln -s ../small/model.safetensors linked/ && cp small/config.json linked && tar -cf linked.tar linked
refused_tar 65 'one with links' 'is a link' linked.tar
mkdir -p both/a both/b && cp small/* both/a && cp small/* both/b && tar -cf both.tar both
refused_tar 65 'one with two models' 'several models' both.tar
tar -cf none.tar small/model.safetensors
refused_tar 66 'one without config.json' 'config.json' none.tar
cp -r small holes && fallocate -p -o 262144 -l 262144 holes/model.safetensors && tar -S -cf holes.tar holes
refused_tar 65 'one with sparse files' 'sparse\|is cut\|not stored' holes.tar
ok 'a tar that changed is another model' '
    rm -rf v && cp small.tar c.tar && llmc-shard -C v -m c.tar -s W4A16 -a rtn $opts
    perl -e "open F, \"+<\", \"c.tar\"; seek F, 150000, 0; print F \"x\" x 70000" 
    rc=0; llmc-gptq -C v -q </dev/null 2>err || rc=$?
    cat err; [ "$rc" -eq 65 ] && oneline err && grep -q "not the model" err'

done_testing
