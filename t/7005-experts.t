#!/bin/sh
# mixtures of experts: calibrated with all tokens and with routed ones, an expert that never fires
. "${0%/*}/lib.sh"
. "$data/mk/arch.sh"

# Sixteen experts, one a token. Router rows 5 and 4 are equal, and the first of equals is chosen: 5 never fires.
family stacked moe 's/ BF16 4 / BF16 16 /'
sed 's/"num_local_experts": 4/"num_local_experts": 16/; s/"num_experts_per_tok": 2/"num_experts_per_tok": 1/' \
    moe/config.json >c && mv c moe/config.json
perl "$data/mk/st.pl" moe/model.safetensors same '
    for my $l (0 .. 2) {
        my $at = $h->{"model.layers.$l.mlp.gate.weight"}{data_offsets}[0];
        substr($data, $at + 5 * 64, 64) = substr $data, $at + 4 * 64, 64;
    }' && mv same moe/model.safetensors
tokens 24 24 >ids
run='llmc run moe -s W4A16 -g 16 --observer minmax -d ids -n 24 -l 24 -q --keep'

method() {      # how a module of a work directory was rounded
    head -c 2000 "$1.work/weights/$2.safetensors" | tr ',{}' '\n\n\n' | sed -n 's/^"method":"\(.*\)"/\1/p'
}
codes() {       # the bytes of a work directory's weights, without what the plan says of itself
    (cd "$1.work/weights" && for f in *; do
        perl -e '$/ = undef; $_ = <STDIN>; print substr $_, 8 + unpack "Q<"' <"$f" | sha256sum | sed "s/-/$f/"
    done)
}

ok 'all experts see all tokens' '
    $run -o all >tasks
    [ "$(grep -c "mlp.experts" tasks)" -eq 144 ]
    sed "\$d" tasks | awk -F "\t" "!(\$3 > 0 && \$3 < \$4 * 1.2) { print; bad = 1 } END { exit bad }"
'
ok 'they share the sum of gate and up, and have one each of down' '
    for s in 2 6 10; do [ "$(ls all.work/hessian/$s)" = mlp.safetensors ] || exit 1; done
    ls all.work/hessian/3 | sort >got
    for e in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do echo down.$e.safetensors; done | sort | diff - got
'
counts() {
    sed -n 's/.*"event": "experts".*"tokens": "\([0-9 ]*\)".*/\1/p' "$1.work/log/llmc-calib.0.jsonl"
}
ok 'tokens of each expert are counted, and one has none' '
    counts all >counts
    cat counts
    awk "{ sum = 0; for (i = 1; i <= NF; i++) sum += \$i; if (NF != 16 || sum != 576 || \$6 != 0) bad = 1 }
        END { exit bad || NR != 3 }" counts
'
ok 'the expert without tokens is rounded by its sum all the same' '[ "$(method all model.layers.0.mlp.experts.5.down_proj)" = gptq ]'

ok 'with routed tokens each expert has its own sums' '
    $run --experts routed --expert-tokens 16 -o routed >tasks 2>err
    cat err
    grep -q "layer 0: .* of 16 experts saw fewer than 16 tokens, 1 of them none: rounded plainly" err
    ls routed.work/hessian/2 | sort >got
    for e in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do echo mlp.$e.safetensors; done | sort | diff - got
'
ok 'those with too few tokens are rounded plainly, by name, and no others' '
    for l in 0 1 2; do
        set -- $(counts routed | sed -n "$((l + 1))p")
        e=0
        for n; do
            want=gptq
            [ "$n" -ge 16 ] || want=rtn-few-tokens
            for m in gate up down; do
                got=$(method routed model.layers.$l.mlp.experts.$e.${m}_proj)
                [ "$got" = $want ] || { echo "layer $l expert $e ${m}: $got, want $want with $n tokens"; exit 1; }
            done
            e=$((e + 1))
        done
        [ $e -eq 16 ] || exit 1
    done
    grep -c "\"event\": \"few-tokens\".*experts.5.down_proj.*\"tokens\": 0" routed.work/log/llmc-gptq.0.jsonl
'
ok 'and never become zeros' '
    perl -e "\$/ = undef; \$_ = <STDIN>; my \$n = unpack q(Q<); exit(substr(\$_, 8 + \$n) =~ /^[\\x88]*\$/)" \
        <routed.work/weights/model.layers.0.mlp.experts.5.up_proj.safetensors
    llmc run moe -s W4A16 -g 16 --observer minmax -a rtn -o rtn -q --keep >tasks
    for m in gate up down; do
        f=model.layers.0.mlp.experts.5.${m}_proj.safetensors
        codes routed | grep "$f" >a
        codes rtn | grep "$f" | diff - a || exit 1
    done
'
ok 'routers and what routes stay as they are' '
    grep -c "layers.*mlp.gate\"" routed/config.json
    [ "$(tensors routed/model.safetensors | grep -c "mlp.gate.weight BF16 16 32")" -eq 3 ]
'
# The first module that is to be published takes two seconds longer; others are published in the meantime.
published() {   # tasks in the order in which that was done, before the first that took so long
    sed -n 's/.*"event": "publish".*"task": "\([^"]*\)", "seconds": \([0-9.e-]*\).*/\1 \2/p' \
        "$1.work/log/llmc-gptq.0.jsonl" | awk '$2 > 2 { exit } { print $1 }'
}
ok 'small modules are compressed side by side, each by one thread, with the same bytes' '
    rm -rf side.work struck
    cp -a routed.work side.work && rm -r side.work/log
    LLMC_FAIL_LOG=struck faulty "rename:1:NAP:*layers.0.mlp.experts*" llmc-gptq -C side.work -q --again -j 2 \
        -m "*layers.0.mlp.experts*" </dev/null >lines
    [ -s struck ] && published side >before
    cat before
    [ "$(wc -l <before)" -ge 1 ] && [ "$(wc -l <lines)" -eq 48 ]
    codes routed >want
    codes side | diff want -
'
ok 'and one by one where memory is short' '
    rm -rf alone.work struck
    cp -a routed.work alone.work && rm -r alone.work/log
    needs() { sed -n "s/.*\"event\": \"memory\", .*\"bytes\": \([0-9]*\).*/\1/p" "$1.work/log/llmc-gptq.0.jsonl"; }
    LLMC_FAIL_LOG=struck faulty "rename:1:NAP:*layers.0.mlp.experts*" llmc-gptq -C alone.work -q --again -j 2 \
        -m "*layers.0.mlp.experts*" --memory $(($(needs side) - 1)) </dev/null >lines 2>err
    [ -s struck ] && published alone >before
    cat before err
    [ ! -s before ] && [ "$(wc -l <lines)" -eq 48 ] && [ "$(needs alone)" -lt "$(needs side)" ]
    codes routed >want
    codes alone | diff want -
'
ok 'a line that comes twice is one task' '
    rm -rf twice.work
    cp -a routed.work twice.work
    for e in 0 1 2 3; do
        line="model.layers.0.mlp.experts.$e.down_proj	$(pwd)/twice.work/hessian/3/down.$e.safetensors"
        printf "%s\n%s\n" "$line" "$line"
    done >in
    llmc-gptq -C twice.work -q --again -j 2 -m "*.0.mlp.experts.[0-3].down_proj" <in >lines
    cat lines
    [ "$(cut -f 1 lines | sort -u | wc -l)" -eq 4 ] && [ "$(wc -l <lines)" -eq 4 ]
'
for s in TERM INT USR1; do
    ok "$s: those that are begun are finished and published, and no others begun" "
        rm -rf told.work struck
        cp -a routed.work told.work && rm -r told.work/log
        rc=0
        LLMC_FAIL_LOG=struck faulty 'rename:3:$s:*layers.0.mlp.experts*' llmc-gptq -C told.work -q --again -j 2 \\
            -m '*layers.0.mlp.experts*' </dev/null >lines 2>err || rc=\$?
        cat err
        [ \$rc -eq 75 ] && [ -s struck ] && [ \"\$(wc -l <lines)\" -ge 3 ] && [ \"\$(wc -l <lines)\" -lt 10 ]
        [ \"\$(grep -c '\"event\": \"publish\"' told.work/log/llmc-gptq.0.jsonl)\" -eq \"\$(wc -l <lines)\" ]
    "
done
ok 'stage by stage, with other threads, the bytes are the same' '
    llmc-shard -C parts.work -m moe -s W4A16 -g 16 --observer minmax -d ids -n 24 -l 24 -q --experts routed \
        --expert-tokens 16
    while llmc-gptq -C parts.work -n | grep -q .; do
        llmc-calib -C parts.work -j 1 -q -s "$(cat step 2>/dev/null || echo 0)" >x 2>/dev/null
        llmc-hessian -C parts.work -j 3 -q --keep <x >y
        llmc-gptq -C parts.work -j 2 -q <y >/dev/null 2>&1 || :
        echo $(($(cat step 2>/dev/null || echo 0) + 1)) >step
        [ "$(cat step)" -lt 14 ]
    done
    codes routed >want
    codes parts | diff want -
'
ok 'shared by three ranks, the bytes are the same' '
    shard="llmc-shard -m moe -s W4A16 -g 16 --observer minmax -d ids -n 24 -l 24 -q --block-tokens 96 --experts routed
        --expert-tokens 16"
    $shard -C one.work && llmc pipeline -C one.work -q >/dev/null
    $shard -C three.work --ranks 3
    for r in 0 1 2; do llmc pipeline -C three.work -q --rank $r --ranks 3 --comm files >/dev/null & done
    wait
    [ "$(sed 1d three.work/blocks.tsv | cut -f 5 | sort -u | wc -l)" -eq 3 ]
    for w in one three; do
        (cd $w.work/weights && for m in $(sed 1d ../../one.work/tasks.tsv | cut -f 4 | sort -u); do
            for f in $m.safetensors $m@*.safetensors; do
                [ ! -f "$f" ] || perl -e "\$/ = undef; \$_ = <STDIN>; print substr \$_, 8 + unpack q(Q<)" <"$f"
            done | sha256sum | sed "s/-/$m/"
        done) >$w.sums
    done
    [ "$(wc -l <one.sums)" -eq 156 ]
    diff one.sums three.sums
'
sed 's/"num_experts_per_tok": 1/"num_experts_per_tok": 16/' moe/config.json >c && mv c moe/config.json
ok 'where every token goes to every expert, both ways are the same' '
    $run -o whole >/dev/null
    $run --experts routed -o chosen >/dev/null
    codes whole >want
    codes chosen | diff want -
'
fails 65 'a work directory of the other way is refused' '
    llmc-shard -C whole.work -m moe -s W4A16 -g 16 --observer minmax -d ids -n 24 -l 24 -q --experts routed 2>err ||
        { rc=$?; cat err; grep -q "another --experts" err; exit $rc; }
'
for order in layer none; do
    ok "in order $order, too" "
        \$run --sequential $order --experts routed --expert-tokens 1 -o $order >tasks
        [ \"\$(grep -c mlp.experts tasks)\" -eq 144 ]
    "
done

done_testing
