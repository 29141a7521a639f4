# arch.pl DIR OUT - a checkpoint OUT from DIR/config.json and DIR/tensors.txt (lines: name, type, sizes): weights are
# pseudo-random from the tensor's name, of a size that keeps activations near 1, and exact in eight bits of mantissa.
use strict;
use warnings;
use JSON::PP;

my ($dir, $out) = @ARGV;

# pack formats and how a value becomes what they want
my %types = (
    BF16 => [2, sub { pack 'S<*', map { unpack('L<', pack 'f<', $_) >> 16 } @_ }],
    F32 => [4, sub { pack 'f<*', @_ }],
    F8_E4M3 => [1, sub { pack 'C*', map { e4m3($_) } @_ }],
);

sub e4m3 {      # of v = k / 8, |k| < 16
    my $v = abs $_[0];
    my $e = $v >= 1 ? 7 : $v >= .5 ? 6 : $v >= .25 ? 5 : 4;
    return ($_[0] < 0 ? 128 : 0) | ($v < .125 ? 0 : $e << 3 | int(($v / 2 ** ($e - 7) - 1) * 8 + .5));
}

sub values_of {
    my ($name, $type, @shape) = @_;
    my ($count, $state) = (1, 2166136261);
    $count *= $_ for @shape;
    $state = (($state ^ $_) * 16777619) & 0xffffffff for unpack 'C*', $name;
    my $scale = @shape > 1 ? 2 ** int(log(2.4 / sqrt $shape[-1]) / log(2) + 100.5 - 100) : .5;
    $scale = 1 if $name =~ /embed/;
    return map {
        $state = ($state * 1664525 + 1013904223) & 0xffffffff;
        my $k = ($state >> 24) - 128;
        $type eq 'F8_E4M3' ? int($k / 8) / 8 :
            $name =~ /scale_inv$/ ? (8 + ($k & 7)) / 64 :      # times four bits: exact in BF16
            $name =~ /norm[.]weight$/ ? (64 + ($k & 127)) / 128 : $k / 128 * $scale;
    } 1 .. $count;
}

my ($data, %header) = ('', __metadata__ => { format => 'pt' });
open my $list, '<', "$dir/tensors.txt" or die "$dir/tensors.txt: $!\n";
while (<$list>) {
    my ($name, $type, @shape) = split;
    my ($size, $pack) = @{$types{$type} // die "$name: type $type\n"};
    my $bytes = $pack->(values_of($name, $type, @shape));
    $header{$name} = { dtype => $type, shape => [map { 0 + $_ } @shape],
        data_offsets => [length $data, length($data) + length $bytes] };
    $data .= $bytes;
}
mkdir $out;
my $text = JSON::PP->new->canonical->utf8->encode(\%header);
$text .= ' ' x (-length($text) % 8);
open my $f, '>:raw', "$out/model.safetensors" or die "$out/model.safetensors: $!\n";
print $f pack('Q<', length $text), $text, $data or die "$out: $!\n";
close $f or die "$out: $!\n";
open my $in, '<:raw', "$dir/config.json" or die "$dir/config.json: $!\n";
open my $config, '>:raw', "$out/config.json" or die "$out/config.json: $!\n";
print $config do { local $/; <$in> } or die "$out: $!\n";
close $config or die "$out: $!\n";
