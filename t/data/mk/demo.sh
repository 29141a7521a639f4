# demo.sh - what tests on the demo model share; source it after lib.sh
#
#   ids LENGTH COUNT [FILE]    token ids of FILE (default: the calibration texts) as JSON lines, on stdout
#   model DIR                  a copy of the demo model to spoil
#   spoil DIR CODE             changes its model.safetensors, see st.pl
#   short DIR                  the first two layers of the demo model, for tests that run it many times
#   clean DIR                  no plan in DIR, and no temporary file anywhere here
#   weights DIR                a digest of every task file, one a line
#   refused CODE 'name' PATTERN 'script'
#                              a test: the script exits with CODE, says why in one line, leaves nothing in w

demo=$root/share/demo

ids() {
    perl "$data/mk/ids.pl" "$demo/tokenizer.json" "$1" "$2" <"${3:-$demo/calib.jsonl}"
}

model() {
    mkdir -p "$1" && cp "$demo/config.json" "$demo/model.safetensors" "$1"
}

spoil() {
    perl "$data/mk/st.pl" "$demo/model.safetensors" "$1/model.safetensors" "$2"
}

short() {
    model "$1"
    spoil "$1" '
        my $kept = "";
        delete $h->{__metadata__};
        for my $k (sort { $h->{$a}{data_offsets}[0] <=> $h->{$b}{data_offsets}[0] } keys %$h) {
            my ($from, $to) = @{$h->{$k}{data_offsets}};
            if ($k =~ /[.]layers[.][23][.]/) { delete $h->{$k}; next }
            $h->{$k}{data_offsets} = [length $kept, length($kept) + $to - $from];
            $kept .= substr $data, $from, $to - $from;
        }
        $data = $kept'
    sed 's/"num_hidden_layers": 4/"num_hidden_layers": 2/' "$demo/config.json" >"$1/config.json"
}

clean() {
    t_left=$(find . -name '*.tmp.*'; find "$1/plan.json" 2>/dev/null || :)
    [ -z "$t_left" ] || { echo "left over: $t_left"; return 1; }
}

weights() {
    (cd "$1/weights" && find . -type l | sed 's/^/link /' && sha256sum ./*.safetensors)
}

refused() {
    t_code=$1 t_pattern=$3 t_script=$4
    rm -rf w
    ok "$2" '
        rc=0
        (eval "$t_script") 2>err || rc=$?
        cat err
        echo "exit status $rc, want $t_code and a message like \"$t_pattern\", from: $t_script"
        [ "$rc" -eq "$t_code" ] && oneline err && grep -Eq -e "$t_pattern" err && clean w
    '
}
