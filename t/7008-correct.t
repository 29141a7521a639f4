#!/bin/sh
# --correct: targets from the original's outputs; every scheme, experts, orders of layers, ranks, kills
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"
. "$data/mk/arch.sh"
no_leak_check

ids 64 18 >ids
ids 64 16 >ids.16
short small

plan() {    # DIR RANKS [option ...]
    p_dir=$1 p_ranks=$2
    shift 2
    llmc-shard -C "$p_dir" -m small -d ids --block-tokens 128 --ranks "$p_ranks" -q "$@"
}
out() {     # DIR of work: the digests of its checkpoint, which is sound
    rm -rf out
    llmc-pack -C "$1" -o out -q >/dev/null && llmc-pack --check out --against small >&2 && (cd out && sha256sum ./*)
}
values() {  # FILE of log, EVENT, KEY: one a line
    sed -n "s/.*\"event\": \"$2\".*\"$3\": \([-+0-9.e]*\).*/\1/p" "$1"
}

# --- what it does ---

plan plain 1 -s W4A16 -g 32
llmc pipeline -C plain -q >plain.out
llmc-shard -C fewer -m small -d ids.16 --block-tokens 128 -s W4A16 -g 32 -q # what goes into the sums of the next
llmc pipeline -C fewer -q >fewer.out
plan one 1 -s W4A16 -g 32 --correct
llmc pipeline -C one -q >one.out
out one >one.sums
cat >all.yaml <<'EOF'
s_stage:
  q_modifiers:
    GPTQModifier:
      ignore: [lm_head]
      weight_observer: imatrix_mse
      correct: all
      config_groups:
        a: { targets: [Linear], weights: { num_bits: 4, type: int, symmetric: true, strategy: group, group_size: 32 } }
EOF
plan all 1 -r all.yaml
llmc pipeline -C all -q >all.out
ok 'all modules are through' '[ "$(grep -c . one.sums)" -ge 4 ] && [ -z "$(find one/weights -type l)" ]'
ok 'where all modules are corrected the first step has nothing to make up for, the others have' '
    awk "\$1 ~ /layers.0.*[qkv]_proj/" fewer.out | cut -f1,3 >a
    awk "\$1 ~ /layers.0.*[qkv]_proj/" all.out | cut -f1,3 >b
    [ "$(grep -c . a)" -eq 3 ] && diff a b
    awk "\$1 !~ /layers.0.*[qkv]_proj/" fewer.out | cut -f1,3 >a
    awk "\$1 !~ /layers.0.*[qkv]_proj/" all.out | cut -f1,3 >b
    paste a b | awk "\$2 == \$4 { print; bad = 1 } END { exit bad || NR != 11 }"
'
ok '--correct is for modules that add to the residual stream' '
    grep -c "\"event\": \"correct\"" one/log/llmc-gptq.0.jsonl all/log/llmc-gptq.0.jsonl | xargs >got
    echo one/log/llmc-gptq.0.jsonl:4 all/log/llmc-gptq.0.jsonl:14 | diff - got
    sed -n "s/.*event\": \"correct\".*task\": \"\([^\"]*\)\".*/\1/p" one/log/llmc-gptq.0.jsonl | grep -c "[no]_proj$" | grep -qx 4
    sed "s/correct: all/correct: residual/" all.yaml >residual.yaml
    plan res 1 -r residual.yaml && llmc pipeline -C res -q | cut -f1,3 >a && cut -f1,3 one.out | diff a -
'
for d in one all; do
    ok "modules come nearer to the outputs of the original than GPTQ alone, and that nearer than plain rounding: $d" "
        for k in loss uncorrected_loss rtn_loss; do values $d/log/llmc-gptq.0.jsonl correct \$k >\$k; done
        paste loss uncorrected_loss rtn_loss | awk '!(\$1 > 0 && \$1 <= 1.05 * \$2 && \$2 < \$3) { print NR, \$0; bad = 1 }
            { s += \$1; t += \$2 } END { print s, t; exit bad || s >= 0.97 * t }'
    "
done
ok 'what is said of GPTQ alone comes from an eighth of the rows, at least 64, and is the same where nothing is corrected' '
    values all/log/llmc-gptq.0.jsonl correct compared_rows | head -n 7 | xargs >got
    echo 64 64 64 64 96 96 64 | diff - got # of 256, 64, 64, 256, 768, 768, 256
    paste loss uncorrected_loss | head -n 3 | awk "{ if ((\$1 / \$2 - 1) ^ 2 > 1e-14) { print; bad = 1 } } END { exit bad || NR != 3 }"
    awk "\$1 ~ /layers.0.*[qkv]_proj/" fewer.out | cut -f4 | paste - rtn_loss | head -n 3 |
        awk "{ if (NR == 1 ? \$1 / \$2 < 0.8 || \$1 / \$2 > 1.25 : (\$1 / \$2 - 1) ^ 2 > 1e-8) { print; bad = 1 } } END { exit bad || NR != 3 }"
'
ok 'of nine blocks one is kept out of all sums' '
    values one/log/llmc-hessian.0.jsonl hessian rows | sort -u >got
    [ "$(cat got)" = 1024 ]
'
ok 'the log tells how far both kinds of blocks are from the original' '
    for k in apart size held_apart held_size; do values one/log/llmc-calib.0.jsonl distance $k >$k; done
    [ "$(grep -c . apart)" -eq 7 ]
    paste apart size held_apart held_size | awk "!(\$1 > 0 && \$1 < 0.2 * \$2 && \$3 > 0 && \$3 < 0.2 * \$4 && \$3 / \$4 < 10 * \$1 / \$2) {
        print; bad = 1 } END { exit bad }"
'
ok 'and llmc-report prints it' '
    llmc-report -C one --distance >r
    sed -n "s/^# //p" r | xargs | grep -qx "run distance"
    sed "1,/# distance/d" r | head -n 1 | tr "\\t" " " | grep -qx "step layer behind distance held_out"
    sed "1,/# distance/d" r | tail -n +2 >rows
    cut -f 1-3 rows | tr "\\t" : | xargs >got
    echo 0:0:attn 1:0:o 2:0:mlp 3:0:down 4:1:attn 5:1:o 6:1:mlp | diff - got
    paste apart size held_apart held_size rows | awk "{ if ((\$1 / \$2 / \$8 - 1) ^ 2 > 1e-9 || (\$3 / \$4 / \$9 - 1) ^ 2 > 1e-9) { print; bad = 1 } }
        END { exit bad || NR != 7 }"
    llmc-report -C plain --distance >r && ! grep "# distance" r
'
ok 'the checkpoint does not differ in form' '
    out plain >/dev/null && mv out plain.dir && out one >/dev/null
    cmp plain.dir/config.json out/config.json && cmp plain.dir/recipe.yaml out/recipe.yaml && echo "it is not in the recipe" && exit 1
    grep -q "correct: residual" out/recipe.yaml
'
ok 'the model is better for it, on text that was not calibrated with' '
    ids 256 64 >many
    for c in "" --correct; do
        rm -rf m && llmc run "$demo" -s W2A16 -g 32 -d many -n 64 -l 256 -o m -q $c >/dev/null
        llmc-eval -m m -d "$demo/eval.jsonl" -l 256 -w 24 -q | cut -f2 >ppl$c
    done
    paste ppl ppl--correct | awk "{ print; exit !(\$1 > 1 && \$2 < 0.99 * \$1) }"
'

ok 'the plan counts what it takes' '
    for c in "" --correct; do
        llmc-shard -m small -s W4A16 -g 32 -n 128 -l 256 --plan --ranks 1 $c | tail -n 1 >plan$c
        llmc-shard -m small -s W4A16 -g 32 --plan $c | tail -n 1 | sed "s/.*steps, //; s/ .*//" >cost$c
    done
    paste plan plan--correct | awk "{ print; exit !(\$19 > 1.5 * \$8 && \$21 > \$10) }"
    paste cost cost--correct | awk "{ print; exit !(\$2 > 1.5 * \$1 && \$2 < 4 * \$1) }"
'

# --- the same bytes ---

ok 'of three threads' 'plan j3 1 -s W4A16 -g 32 --correct && llmc pipeline -C j3 -q -j 3 >/dev/null && out j3 | diff one.sums -'
ok 'of frames that go through the pipe' '
    plan inline 1 -s W4A16 -g 32 --correct
    llmc-calib -C inline -q --frames inline | llmc-hessian -C inline -q | llmc-gptq -C inline -q >/dev/null
    out inline | diff one.sums -
'
files() {   # DIR RANKS
    f_pids= f_rc=0 r=0
    while [ $r -lt "$2" ]; do
        llmc pipeline -C "$1" --rank $r --ranks "$2" --comm files -q >"$1.out.$r" 2>"$1.err.$r" &
        f_pids="$f_pids $!" r=$((r + 1))
    done
    for pid in $f_pids; do
        wait "$pid" || f_rc=$?
    done
    cat "$1".err.*
    return $f_rc
}
for n in 2 3; do
    ok "of $n ranks by files" "plan f$n $n -s W4A16 -g 32 --correct && files f$n $n && out f$n | diff one.sums -"
    case $(llmc-hessian --version) in
    *'MPI yes'*) ok "of $n ranks by MPI" "
        plan m$n $n -s W4A16 -g 32 --correct
        timeout 240 mpirun --allow-run-as-root --oversubscribe --bind-to none -n $n llmc pipeline -C m$n -q --comm mpi >/dev/null
        out m$n | diff one.sums -" ;;
    *) skip "of $n ranks by MPI" 'no MPI' ;;
    esac
done
ok 'of Hessians that are kept, and rounded by themselves' '
    plan kept 1 -s W4A16 -g 32 --correct
    llmc pipeline -C kept --keep -q >/dev/null
    sum=$(sha256sum <kept/weights/model.layers.1.mlp.down_proj.safetensors)
    llmc-gptq -C kept --again -m "*.1.mlp.down_proj" -q </dev/null
    [ "$sum" = "$(sha256sum <kept/weights/model.layers.1.mlp.down_proj.safetensors)" ]
'
ok 'after kills at states of either stream, which a restart reads' '
    n=3 times=0 read=0
    while [ $n -lt 200 ]; do
        rm -rf k
        plan k 1 -s W4A16 -g 32 --correct
        LLMC_FAIL="any:$n:KILL:*state/*" LLMC_FAIL_LOG=struck LD_PRELOAD=$build/t/fail.so \
            ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-} llmc-calib -C k -q --state-seconds 0 2>/dev/null |
            llmc-hessian -C k -q 2>/dev/null | llmc-gptq -C k -q >/dev/null 2>&1 || :
        [ -s struck ] || break
        ls k/state/*/*.original.safetensors >/dev/null 2>&1 && read=$((read + 1))
        rm -f struck
        llmc pipeline -C k -q >/dev/null
        out k | diff one.sums -
        n=$((n + 37)) times=$((times + 1))
    done
    rm -rf k
    echo "$times kills, $read with states"
    [ $times -ge 3 ] && [ $read -ge 2 ]
'

# --- schemes, orders, experts ---

for s in W4A16_ASYM W8A8 NVFP4A16 NVFP4 MXFP4A16 FP8 FP8_BLOCK W3A16; do
    ok "$s" "
        rm -rf s && plan s 1 -s $s --correct && llmc pipeline -C s -q >/dev/null && out s >/dev/null
        values s/log/llmc-gptq.0.jsonl correct loss >a
        values s/log/llmc-gptq.0.jsonl correct uncorrected_loss >b
        paste a b | awk '{ s += \$1; t += \$2 } END { print s, t; exit NR != 4 || s > t }'
    "
done
ok '--sequential layer' '
    rm -rf s && plan s 1 -s W4A16 -g 32 --correct --sequential layer && llmc pipeline -C s -q >/dev/null && out s >/dev/null
    values s/log/llmc-gptq.0.jsonl correct distance >a
    awk "{ if (NR <= 2 && \$1 > 1e-5) bad = 1; s += \$1 } END { exit bad || NR != 4 || s <= 0 }" a
'
family stacked moe
tokens 24 24 >moe.ids
for e in all routed; do
    ok "experts calibrated with $e tokens" "
        llmc run moe -s W4A16 -g 16 --correct --experts $e --expert-tokens 16 -d moe.ids -n 24 -l 24 -q --keep -o moe.$e >tasks
        values moe.$e.work/log/llmc-gptq.0.jsonl correct loss >a
        values moe.$e.work/log/llmc-gptq.0.jsonl correct uncorrected_loss >b
        paste a b | awk '{ s += \$1; t += \$2 } END { print NR, s, t; exit NR < 12 || s > t }'
        llmc-pack --check moe.$e --against moe
    "
done
cat >part.yaml <<'EOF'
s_stage:
  q_modifiers:
    GPTQModifier:
      ignore: [lm_head]
      correct: true
      correct_lambda: 1.0
      config_groups:
        a: { targets: ["re:.*mlp.*"], weights: { num_bits: 4, type: int, symmetric: true, strategy: group, group_size: 32 } }
  r_modifiers:
    GPTQModifier:
      ignore: [lm_head]
      config_groups:
        b: { targets: ["re:.*self_attn.*"], weights: { num_bits: 8, type: int, symmetric: true, strategy: channel } }
EOF
ok 'a recipe may correct some modules' '
    plan part 1 -r part.yaml && llmc pipeline -C part -q >/dev/null && out part >/dev/null
    [ "$(values part/log/llmc-gptq.0.jsonl correct lambda | sort -u)" = 1.3333333333333333 ] ||
        values part/log/llmc-gptq.0.jsonl correct lambda | sort | uniq -c
    [ "$(values part/log/llmc-gptq.0.jsonl correct loss | grep -c .)" -eq 2 ]
'

# --- what is refused ---

refused 64 'with --sequential none there is nothing to correct' 'nothing to correct' 'llmc-shard -C w -m small -d ids -s W4A16 --correct --sequential none'
refused 64 'plain rounding' 'not with plain rounding' 'llmc-shard -C w -m small -s W4A16 -a rtn --correct'
refused 64 'beside a recipe' 'a recipe says so itself' 'llmc-shard -C w -m small -d ids -r part.yaml --correct'
refused 65 'rules of 0.10' '--compat 0.10' 'llmc-shard -C w -m small -d ids -s W4A16 --correct --compat 0.10'
bad() {     # CODE 'name' PATTERN LINE of a recipe
    sed "s/correct_lambda: .*/$4/" part.yaml >bad.yaml
    refused "$1" "$2" "$3" 'llmc-shard -C w -m small -d ids -r bad.yaml'
}
bad 65 'a lambda that is negative' 'bad.yaml: line 6: .*correct_lambda is negative' 'correct_lambda: -1'
bad 65 'a lambda that is no number' 'correct_lambda is not a number' 'correct_lambda: high'
sed '/correct: true/d' part.yaml >bad.yaml
refused 65 'a lambda for nothing' 'correct_lambda without correct: true' 'llmc-shard -C w -m small -d ids -r bad.yaml'
sed 's/correct: true/correct: some/; /correct_lambda/d' part.yaml >bad.yaml
refused 65 'a switch that is none' 'correct is not true, false, residual or all' 'llmc-shard -C w -m small -d ids -r bad.yaml'
ok 'a stream without the other half of pairs' '
    plan half 1 -s W4A16 -g 32
    plan pair 1 -s W4A16 -g 32 --correct
    llmc-calib -C half -s 1 -q >x
    a=$(sed -n "s/.*\"fingerprint\": \"\([0-9a-f]*\)\".*/\1/p" half/plan.json)
    b=$(sed -n "s/.*\"fingerprint\": \"\([0-9a-f]*\)\".*/\1/p" pair/plan.json)
    perl -pe "s/$a/$b/g" <x >y
    rc=0; llmc-hessian -C pair -q <y >/dev/null 2>err || rc=$?
    cat err; [ $rc -eq 65 ] && grep -q "not a pair" err
'
ok 'a plan with it and one without are different' '
    rc=0; llmc-shard -C one -m small -d ids --block-tokens 128 -q -s W4A16 -g 32 2>err || rc=$?
    cat err; [ $rc -eq 65 ] && grep -q "another recipe" err
'
done_testing
