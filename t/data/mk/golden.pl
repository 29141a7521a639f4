# golden.pl CASE.json DIR - a checkpoint with one module, "layer", of a golden case: its tensors on disk and its config;
# DIR/qdq.bin: the bytes of weight_qdq, if the case has it.
use strict;
use warnings;
use JSON::PP;

my ($json, $dir) = @ARGV;
sub slurp { my $f = shift; open my $in, '<:raw', $f or die "$f: $!\n"; local $/; <$in> }
sub spill { my ($f, $s) = @_; open my $out, '>:raw', $f or die "$f: $!\n"; print $out $s; close $out or die "$f: $!\n" }
my $case = decode_json(slurp($json));
my $bin = slurp($json =~ s/json$/bin/r);
my (%h, $data) = ();

$data = '';
for my $t (sort { $a->{name} cmp $b->{name} } @{$case->{tensors}}) {
    my $bytes = substr $bin, $t->{offset}, $t->{nbytes};
    spill("$dir/qdq.bin", $bytes) if $t->{name} eq 'weight_qdq';
    next unless $t->{name} =~ /^(weight|input)(?!_qdq|[.])/;
    $h{"layer.$t->{name}"} = { dtype => $t->{dtype}, shape => $t->{shape},
        data_offsets => [length $data, length($data) + $t->{nbytes}] };
    $data .= $bytes;
}
$h{__metadata__} = { format => 'pt' };
my $text = JSON::PP->new->canonical->encode(\%h);
$text .= ' ' x (-length($text) % 8);
spill("$dir/model.safetensors", pack('Q<', length $text) . $text . $data);
spill("$dir/config.json", JSON::PP->new->canonical->encode({ model_type => 'none', dtype => 'bfloat16',
    quantization_config => $case->{quantization_config} }));
spill("$dir/tokenizer.json", '{}');
