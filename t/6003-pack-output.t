#!/bin/sh
# llmc-pack: shards by threads and ranks, going on, tars
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

short small
cp "$demo/tokenizer.json" "$demo/generation_config.json" small
llmc run small -s W4A16 -g 32 -a rtn -C w -o one -q >/dev/null
cut='--shard-size 40K -q'
llmc-pack -C w -o good $cut -j1 >/dev/null
shards=$(ls good/*.safetensors | wc -l)

same_dir() { # DIR: as good, and nothing beside it
    diff -r good "$1" && clean none
}

ok 'several shards' '[ "$shards" -gt 4 ] && llmc-pack --check good'
for j in 2 3 8; do
    ok "the same bytes with $j threads" 'rm -rf out; llmc-pack -C w -o out $cut -j$j; same_dir out'
done

# --- ranks ---

ranks() {   # N [what the shell does with each]
    r=0
    while [ $r -lt "$1" ]; do
        llmc-pack -C w -o out $cut --rank $r --ranks "$1" >"said.$r" &
        r=$((r + 1))
    done
    wait
}

for n in 2 3 12; do
    ok "the same bytes by $n ranks at once" 'rm -rf out; ranks $n; cat said.*; same_dir out && [ "$(cat said.* | wc -l)" -eq 1 ]'
done
ok 'and one after the other' '
    rm -rf out
    llmc-pack -C w -o out $cut --rank 1 --ranks 3 && [ ! -e out ]
    llmc-pack -C w -o out $cut --rank 0 --ranks 3 && [ ! -e out ]
    [ "$(ls out.tmp.*/*.safetensors | wc -l)" -lt $shards ]
    llmc-pack -C w -o out $cut --rank 2 --ranks 3
    same_dir out
'
ok 'a rank that comes late finds it done' 'llmc-pack -C w -o out $cut --rank 1 --ranks 3 >said && [ ! -s said ] && same_dir out'
fails 73 'but not what was made from another plan' '
    rm -rf other && cp -a good other && sed -i "s/\"plan\": \"..../\"plan\": \"0000/" other/provenance.json
    llmc-pack -C w -o other $cut --rank 1 --ranks 3'
fails 64 'ranks do not replace' 'llmc-pack -C w -o out $cut --rank 1 --ranks 3 --force'
ok 'one shard by two ranks' '
    rm -rf out
    llmc-pack -C w -o out -q --rank 1 --ranks 2 && [ ! -e out ]
    llmc-pack -C w -o out -q --rank 0 --ranks 2 && diff -r one out && clean none'
ok 'a rank is killed, another one that takes its place ends it' '
    rm -rf out
    LLMC_FAIL_LOG=struck faulty "rename:2:KILL:*.safetensors" llmc-pack -C w -o out $cut --rank 0 --ranks 2 -j1 || [ $? -eq 137 ]
    [ -s struck ]
    llmc-pack -C w -o out $cut --rank 1 --ranks 2 && [ ! -e out ]
    llmc-pack -C w -o out $cut --rank 0 --ranks 2 && same_dir out'
for op in '*.sha256' '*.safetensors'; do
    ok "one has all but the last name of $op, another one does not take the directory away" '
        rm -rf out struck
        llmc-pack -C w -o out $cut --rank 0 --ranks 2
        last=$((shards / 2))
        LLMC_FAIL="rename:$last:STOP:$op" LLMC_FAIL_LOG=struck LD_PRELOAD=$build/t/fail.so \
            ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-} llmc-pack -C w -o out $cut --rank 1 --ranks 2 -j1 &
        pid=$!
        i=0
        until [ -s struck ] || [ $i -gt 200 ]; do sleep 0.1; i=$((i + 1)); done
        [ -s struck ]
        llmc-pack -C w -o out $cut --rank 0 --ranks 2 >said && [ ! -s said ] && [ ! -e out ]
        kill -CONT $pid
        wait $pid && same_dir out'
done
# Rank 1 of 2 finishes, and SIGNAL meets it before the last name of config.json.
meets() {   # SIGNAL
    rm -rf out struck
    llmc-pack -C w -o out $cut --rank 0 --ranks 2
    LLMC_FAIL=rename:1:$1:*config.json LLMC_FAIL_LOG=struck LD_PRELOAD=$build/t/fail.so \
        ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-} llmc-pack -C w -o out $cut --rank 1 --ranks 2 &
    pid=$!
    i=0
    until [ -s struck ] || [ $i -gt 200 ]; do sleep 0.1; i=$((i + 1)); done
    [ -s struck ] && ls -d out.tmp.*.tmp.*
}

ok 'while one finishes, another has nothing to do' '
    meets STOP
    llmc-pack -C w -o out $cut --rank 0 --ranks 2 >said && [ ! -s said ] && [ ! -e out ]
    rc=0
    llmc-pack -C w -o out $cut 2>err || rc=$?
    kill -CONT $pid
    [ $rc -eq 75 ] && oneline err
    wait $pid && same_dir out'
for how in '--rank 0 --ranks 2' '-j1'; do
    ok "killed while it finishes, what it had goes on: $how" '
        meets KILL
        wait $pid || [ $? -eq 137 ]
        touch -d 2001-01-01 out.tmp.*/*.safetensors
        llmc-pack -C w -o out $cut $how
        same_dir out && [ -z "$(find out -name "*.safetensors" -newermt 2001-01-02)" ]'
done
ok 'and with other shards it is removed' '
    meets KILL
    wait $pid || [ $? -eq 137 ]
    llmc-pack -C w -o out -q && diff -r one out && clean none'
ok 'llmc run --ranks 2 packs with both' '
    rm -rf out
    llmc run small -s W4A16 -g 32 -a rtn -C w2 -o out --ranks 2 --comm files --show | tee show | grep -c "^llmc-pack.*--rank [01] --ranks 2 .*&$" | grep -qx 2
    llmc run small -s W4A16 -g 32 -a rtn -C w2 -o out --ranks 2 --comm files -q
    diff -r one out'

# --- going on ---

written() { # the shards that it writes, from what it creates
    strace -f -e trace=rename -o trace "$@" && grep -c "rename(.*safetensors\"" trace
}

ok 'killed, it goes on behind the shards that were finished' '
    rm -rf out struck
    LLMC_FAIL_LOG=struck faulty "rename:4:KILL:*.safetensors" llmc-pack -C w -o out $cut -j1 || [ $? -eq 137 ]
    cd out.tmp.*
    ls | tee ../ls.txt
    for f in *.safetensors; do sha256sum -c "$f.sha256" || exit 1; done
    [ "$(ls *.safetensors | wc -l)" -eq 3 ]
    touch -d 2001-01-01 *.safetensors
    cd ..
    llmc-pack -C w -o out $cut -j2
    same_dir out
    [ "$(find out -name "*.safetensors" ! -newermt 2001-01-02 | wc -l)" -eq 3 ]
'
ok 'a digest that is lost is made again' '
    rm -rf out struck
    faulty "rename:4:KILL:*.safetensors" llmc-pack -C w -o out $cut -j1 || [ $? -eq 137 ]
    rm out.tmp.*/model-00001*.sha256
    : >"$(ls out.tmp.*/model-00002*.sha256)"
    llmc-pack -C w -o out $cut && same_dir out
'
ok 'after a full disk, too' '
    rm -rf out
    rc=0
    faulty "write:30:ENOSPC:*.tmp.*" llmc-pack -C w -o out $cut -j1 2>err || rc=$?
    [ "$rc" -eq 74 ] && oneline err
    [ "$(ls out.tmp.*/*.safetensors | wc -l)" -gt 0 ]
    ! ls out.tmp.*/*.tmp.* 2>/dev/null
    llmc-pack -C w -o out $cut && same_dir out
'
ok 'what was begun with another size of shards is removed' '
    rm -rf out
    faulty "rename:4:KILL:*.safetensors" llmc-pack -C w -o out $cut -j1 || [ $? -eq 137 ]
    [ -n "$(ls -d out.tmp.*)" ]
    llmc-pack -C w -o out -q && diff -r one out && clean none
'
ok 'two at once: one is told to come back' '
    rm -rf out
    faulty "rename:4:KILL:*.safetensors" llmc-pack -C w -o out $cut -j1 || [ $? -eq 137 ]
    rc=0
    flock -x out.tmp.* llmc-pack -C w -o out $cut 2>err || rc=$?
    cat err
    [ "$rc" -eq 75 ] && oneline err && grep -q "somebody else" err
    llmc-pack -C w -o out $cut && same_dir out
'

# --- tars ---

ok 'a tar' '
    llmc-pack -C w -o x.tar $cut >said && [ "$(wc -l <said)" -eq 1 ]
    mkdir x && tar -xf x.tar -C x
    for f in good/*; do
        case $f in */provenance.json) ;; *) cmp "$f" "x/${f#*/}" || exit 1 ;; esac
    done
    diff good/provenance.json x/provenance.json
    clean none
'
ok 'its bytes are the same again, whenever and with any number of threads' '
    cp x.tar first.tar
    sleep 1.1
    for j in 1 3; do llmc-pack -C w -o x.tar -f $cut -j$j && cmp first.tar x.tar || exit 1; done
'
ok 'and from a copy of the work directory' 'rm -rf w3 && cp -r --no-preserve=all -P w w3 && llmc-pack -C w3 -o y.tar $cut && cmp x.tar y.tar'
ok 'on standard output' 'llmc-pack -C w -o - $cut >y.tar 2>err && [ ! -s err ] && cmp x.tar y.tar'
ok 'in a pipe' 'llmc-pack -C w -o - $cut | cmp - x.tar'
ok 'compressed' '
    llmc-pack -C w -o x.tar.zst $cut >/dev/null
    [ "$(wc -c <x.tar.zst)" -lt "$(wc -c <x.tar)" ]
    zstd -dc x.tar.zst | cmp - x.tar
    cp x.tar.zst first.zst && llmc-pack -C w -o x.tar.zst -f -j4 $cut && cmp first.zst x.tar.zst
'
fails 73 'one that exists is left alone' 'llmc-pack -C w -o x.tar $cut 2>err'
ok '  ... which is said' 'oneline err && cmp x.tar first.tar'
fails 74 'standard output is full' 'llmc-pack -C w -o - $cut >/dev/full 2>err'
ok '  ... which is said' 'cat err; oneline err && grep -q "stdout: .*No space left" err'
fails 75 'no tar of what is not finished' 'rm -rf v && cp -a w v && rm v/weights/model.layers.0.mlp.up_proj.safetensors && llmc-pack -C v -o v.tar $cut'
ok 'nor of what does not pass the check' '
    rm -rf v && cp -a w v
    sed -i "s/GenerationConfig//" small/generation_config.json
    f=model.layers.0.mlp.up_proj.safetensors
    perl "$data/mk/st.pl" w/weights/$f v/weights/$f "
        my (\$k) = grep { /weight_scale/ } keys %\$h;
        substr(\$data, \$h->{\$k}{data_offsets}[0], 2) = qq(\\0\\0)"
    rc=0
    llmc-pack -C v -o v.tar $cut 2>err || rc=$?
    cat err
    [ "$rc" -eq 70 ] && oneline err && grep -q scale err && [ ! -e v.tar ] && clean none
    llmc-pack -C v -o - $cut >v.tar 2>err || rc=$?
    [ "$rc" -eq 70 ] && [ ! -s v.tar ]
'
ok 'the disk is full at any write of a tar' '
    n=1
    while :; do
        rm -f z.tar struck
        rc=0
        LLMC_FAIL_LOG=struck faulty "write:$n:ENOSPC:*z.tar.tmp*" llmc-pack -C w -o z.tar $cut >txt 2>err || rc=$?
        [ -s struck ] || break
        [ "$rc" -eq 74 ] && oneline err && clean none && [ ! -e z.tar ] || { cat err; exit 1; }
        n=$((n + 9))
    done
    [ "$n" -gt 20 ] && cmp z.tar x.tar
'
ok 'killed at any moment there is a whole tar or none' '
    n=1
    while :; do
        rm -f z.tar struck
        LLMC_FAIL_LOG=struck faulty "any:$n:KILL:*z.tar*" llmc-pack -C w -o z.tar $cut >txt 2>err || [ $? -eq 137 ]
        [ -s struck ] || break
        [ ! -e z.tar ] || cmp z.tar x.tar
        n=$((n + 17))
    done
    [ "$n" -gt 20 ] && cmp z.tar x.tar && rm -f z.tar.tmp.* && clean none
'

# --- digests of the source ---

inputs() {  # DIR: that of the model's only shard
    tr -d ' \n' <"$1/provenance.json" | sed 's/.*"inputs":{[^}]*"model.safetensors":"\([0-9a-f]*\)".*/\1/'
}
true_sum=$(sha256sum <small/model.safetensors | cut -d' ' -f1)
false_sum=$(printf '%064d' 7)
ok 'llmc-gptq has left the digest of the shard' '[ "$(cut -d" " -f1 w/digests/model.safetensors.sha256)" = $true_sum ] && [ "$(inputs good)" = $true_sum ]'
noted() {   # LINE of a note
    rm -rf out && echo "$1" >w/digests/model.safetensors.sha256 && llmc-pack -C w -o out -q >/dev/null && inputs out
}
note=$(cat w/digests/model.safetensors.sha256)
ok 'llmc-pack takes it' '[ "$(noted "$false_sum ${note#* }")" = $false_sum ]'
for bad in "$false_sum ${note#* }1" "$false_sum 1${note#* }" "$false_sum" "" "$(printf '%063d' 7) ${note#* }" "x$note"; do
    ok "but not \"$bad\"" '[ "$(noted "$bad")" = $true_sum ]'
done
ok 'nor that of a file that has changed since' '
    cp -r small small2 && llmc-shard -C w5 -m small2 -s W4A16 -g 32 -a rtn -q && llmc-gptq -C w5 -q </dev/null >txt
    echo "$false_sum ${note#* }" >w5/digests/model.safetensors.sha256
    touch small2/model.safetensors && llmc-shard -C w5 --relink -q && rm -rf out && llmc-pack -C w5 -o out -q >txt
    [ "$(inputs out)" = $true_sum ]'
ok 'without one llmc-pack reads the shard' 'rm -r w/digests && rm -rf out && llmc-pack -C w -o out -q >txt && [ "$(inputs out)" = $true_sum ]'
ok 'llmc-gptq of some modules leaves none' 'llmc-gptq -C w -q -m "*q_proj" --again </dev/null >txt && [ ! -e w/digests ]'
ok 'one that finds all done leaves it' 'llmc-gptq -C w -q </dev/null >txt && [ "$(cat w/digests/model.safetensors.sha256)" = "$note" ]'

done_testing
