# Work of a usual script: hashes, regular expressions, sorting, subroutines.
use strict;
use warnings;

my $seed = 7;
sub number { $seed = ($seed * 1103515245 + 12345) % 2147483648; return $seed >> 8; }

my %seen;
my $text = "";
for my $i (1 .. 40000) {
	my $word = sprintf("n%d", number() % 4000);
	$seen{$word}++;
	$text .= "$word:$i;";
}
my $sum = 0;
while ($text =~ /n(\d+):(\d+);/g) { $sum = ($sum * 31 + $1 * $2) % 1000003; }
my @order = sort { $seen{$b} <=> $seen{$a} || $a cmp $b } keys %seen;
(my $changed = $text) =~ s/n(\d)(\d*)/m$2$1/g;
print "$sum $order[0] $order[-1] ", length($changed), "\n";
