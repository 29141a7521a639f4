# arch.sh - what tests on the families of t/data/arch share; source it after lib.sh
#
#   family NAME DIR [SCRIPT]   the model of a fixture; SCRIPT, of sed, changes its list of tensors first
#   tokens COUNT LENGTH        sequences of token ids that the families have, as JSON lines, on stdout
#   tensors FILE               names, types and sizes of a safetensors file, sorted
#   carried DIR                what llmc-shard --plan says is carried over

family() {
    mkdir -p "from.$1" && cp "$data/arch/$1/config.json" "from.$1" &&
        sed "${3-}" "$data/arch/$1/tensors.txt" >"from.$1/tensors.txt" && perl "$data/mk/arch.pl" "from.$1" "$2"
}

tokens() {
    awk -v count="$1" -v length_="$2" 'BEGIN {
        for (i = 0; i < count; i++) {
            s = ""
            for (k = 0; k < length_; k++) {
                x = (x * 1103 + 12345 + i) % 65536
                s = s (k > 0 ? ", " : "") int(x / 2048)
            }
            print "{\"input_ids\": [" s "]}"
        }
    }'
}

tensors() {
    perl -MJSON::PP -e '$/ = undef; $_ = <STDIN>; my $h = decode_json(substr $_, 8, unpack q(Q<));
        delete $h->{__metadata__}; print map { qq($_ $h->{$_}{dtype} @{$h->{$_}{shape}}\n) } sort keys %$h' <"$1"
}

carried() {
    llmc-shard --plan -m "$1" -s W4A16 -g 16 | awk -F '\t' '$3 == "carried over" { print $1 }'
}
