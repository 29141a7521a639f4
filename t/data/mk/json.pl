# json.pl FILE CODE - a JSON file changed in place by perl: CODE sees $c, its value.
use strict;
use warnings;
use JSON::PP;

my ($file, $code) = @ARGV;
open my $in, '<:raw', $file or die "$file: $!\n";
my $c = decode_json(do { local $/; <$in> });
eval "$code; 1" or die $@;
open my $out, '>:raw', $file or die "$file: $!\n";
print $out JSON::PP->new->canonical->pretty->encode($c) or die "$file: $!\n";
close $out or die "$file: $!\n";
