# st.pl IN OUT CODE - a safetensors file changed by perl: CODE sees %$h, the header, and $data, and may set $n, the
# header length that the file claims; $d = $h->{NAME}{data_offsets} tells where a tensor's bytes are in $data.
use strict;
use warnings;
use JSON::PP;

my ($from, $to, $code) = @ARGV;
open my $in, '<:raw', $from or die "$from: $!\n";
my $all = do { local $/; <$in> };
my $bytes = unpack 'Q<', $all;
my $h = decode_json(substr $all, 8, $bytes);
my $data = substr $all, 8 + $bytes;
my $n;
eval "$code; 1" or die $@;
my $text = JSON::PP->new->canonical->utf8->encode($h);
$text .= ' ' x (-length($text) % 8);
open my $out, '>:raw', $to or die "$to: $!\n";
print $out pack('Q<', $n // length $text), $text, $data or die "$to: $!\n";
close $out or die "$to: $!\n";
