#!/bin/sh
# The source is never touched, readers see the old or the new weights, and what is not needed any more is gone
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"
no_leak_check

ids 64 16 >ids
short small
cp "$demo/tokenizer.json" small
chmod -R a-w small
opts="-s W4A16 -g 32 -d ids -q"
look() {    # all that a source is
    (cd small && stat -c '%n %s %Y %Z %i' . ./* && sha256sum ./*)
}
look >source
tar -cf small.tar small && sha256sum small.tar >tar.sum

llmc run small $opts -o good -C done >/dev/null
ok 'the source is as it was' 'look | diff source -'
ok 'and so is one in a tar' 'llmc run small.tar $opts -o out -C v >/dev/null && sha256sum -c tar.sum && cmp good/model.safetensors out/model.safetensors'

# One look at every weight of w while it changes: a link's file is first the source's and then never again.
readers() { # until the run of pid has ended; what they saw is counted in old and new
    old=0 new=0 looks=0 states=0 sums=0
    while kill -0 $pid 2>/dev/null; do
        for f in w/weights/*.safetensors; do
            [ -e "$f" ] || { [ -e w/plan.json ] || continue; echo "$f: nothing is there"; return 1; }
            if cmp -s "$f" small/model.safetensors; then
                old=$((old + 1))
            elif cmp "$f" "done${f#w}"; then
                new=$((new + 1))
            else
                return 1
            fi
        done
        n=$(ls w/state 2>/dev/null | wc -l); [ "$n" -le $states ] || states=$n
        n=$(ls w/hessian 2>/dev/null | wc -l); [ "$n" -le $sums ] || sums=$n
        looks=$((looks + 1))
    done
    echo "$looks looks: $old old, $new new; at most $states steps with states, $sums with Hessians"
}

ok 'readers see the old or the new weights, and states and Hessians of two steps at most' '
    rm -rf w out
    llmc-shard -C w -m small $opts
    LLMC_FAIL=rename:2:NAP:*weights* LD_PRELOAD=$build/t/fail.so ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-} \
        llmc run small $opts -o out -C w >/dev/null &
    pid=$!
    until [ -e w/plan.json ]; do kill -0 $pid || exit 1; sleep 0.01; done
    readers
    wait $pid
    cmp good/model.safetensors out/model.safetensors
    [ "$old" -gt 0 ] && [ "$new" -gt 0 ] && [ "$states" -le 2 ] && [ "$sums" -le 2 ]
    look | diff source -
'
ok 'at the end there are neither' '[ ! -e w/state ] && [ ! -e w/hessian ] && clean none'
ok 'a work directory of its own is removed' 'rm -rf out && llmc run small $opts -o out >/dev/null && [ ! -e out.work ]'
ok 'states that are saved often are removed as often' '
    rm -rf w && llmc-shard -C w -m small $opts
    { llmc-calib -C w -q --state-seconds 0 | llmc-hessian -C w -q | llmc-gptq -C w -q >/dev/null; } &
    pid=$!
    most=0
    while kill -0 $pid 2>/dev/null; do
        n=$(ls w/state | wc -l)
        [ "$n" -le $most ] || most=$n
    done
    wait $pid
    echo "at most $most steps"
    [ "$most" -le 2 ] && [ "$(ls w/state | wc -l)" -le 1 ]
    [ "$(ls w/hessian | wc -l)" -le 1 ]
'
ok 'with --keep all Hessians stay' '
    rm -rf w && llmc-shard -C w -m small $opts
    llmc-calib -C w -q | llmc-hessian -C w -q --keep | llmc-gptq -C w -q >/dev/null
    [ "$(ls w/hessian | wc -l)" -eq 8 ]
'
chmod -R u+w small

done_testing
