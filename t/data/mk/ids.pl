# ids.pl TOKENIZER LENGTH COUNT <TEXT.jsonl >IDS.jsonl - COUNT windows of LENGTH token ids, cut from the documents
# joined by blank lines. A byte-level BPE after GPT-2 and nothing else: what the demo model's tokenizer.json asks for.
use strict;
use warnings;
use JSON::PP;

my ($file, $length, $count) = @ARGV;
open my $in, '<:raw', $file or die "$file: $!\n";
my $model = decode_json(do { local $/; <$in> })->{model};
my $vocab = $model->{vocab};
my (%rank, %known, @ids);

$rank{ref $_ ? "@$_" : $_} = keys %rank for @{$model->{merges}};

# Bytes that are no printable Latin-1 character stand as U+0100 and on, in order.
my ($next, @char) = (256);
push @char, chr(($_ > 32 && $_ < 127) || ($_ > 160 && $_ != 173) ? $_ : $next++) for 0 .. 255;

sub word {
    my @p = map { $char[ord] } split //, shift;
    while (@p > 1) {
        my ($best) = sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] }
            map { my $r = $rank{"$p[$_] $p[$_ + 1]"}; defined $r ? [$r, $_] : () } 0 .. $#p - 1;
        last unless $best;
        splice @p, $best->[1], 2, $p[$best->[1]] . $p[$best->[1] + 1];
    }
    return map { $vocab->{$_} // die "no token for a part\n" } @p;
}

my $first = 1;
while (@ids < $length * $count && defined(my $line = <STDIN>)) {
    my $text = ($first ? '' : "\n\n") . decode_json($line)->{text};
    $first = 0;
    while ($text =~ /('(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)/g) {
        my $w = $1;
        utf8::encode($w);
        push @ids, @{$known{$w} //= [word($w)]};
    }
}
die "only " . @ids . " tokens\n" if @ids < $length * $count;
print '{"input_ids": [', join(', ', @ids[$_ * $length .. ($_ + 1) * $length - 1]), "]}\n" for 0 .. $count - 1;
