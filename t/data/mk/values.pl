# values.pl FILE PATTERN - tensors of a safetensors file whose names match: name, type, shape and values, tabs between
use strict;
use warnings;
use JSON::PP;

my ($file, $pattern) = @ARGV;
open my $in, '<:raw', $file or die "$file: $!\n";
my $all = do { local $/; <$in> };
my $bytes = unpack 'Q<', $all;
my $h = decode_json(substr $all, 8, $bytes);
delete $h->{__metadata__};
for my $name (sort grep { /$pattern/ } keys %$h) {
    my ($from, $to) = @{$h->{$name}{data_offsets}};
    my ($type, $data) = ($h->{$name}{dtype}, substr $all, 8 + $bytes + $from, $to - $from);
    my @v = $type eq 'F32' ? unpack 'f<*', $data : $type eq 'I64' ? unpack 'q<*', $data
        : $type eq 'BF16' ? unpack 'f<*', pack 'V*', map { $_ << 16 } unpack 'v*', $data : unpack 'C*', $data;
    print join("\t", $name, $type, join(' ', @{$h->{$name}{shape}}), join ' ', map { sprintf '%.9g', $_ } @v), "\n";
}
