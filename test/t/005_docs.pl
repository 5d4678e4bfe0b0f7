# What the documents show works: every ```sql block of a file is run, in order,
# in one database a file, each in a session of its own. A block below a line
# <!-- error: SQLSTATE --> fails with that SQLSTATE; a ```text block directly
# below is what psql answers.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;

my $node = BillingNode::start();
my $root = "$FindBin::Bin/../..";

# The blocks of a file: line, sql, and either the SQLSTATE or the text, if any.
sub blocks
{
	my ($file) = @_;
	my @lines = split /\n/, slurp_file($file), -1;
	my @blocks;

	for (my $i = 0; $i < @lines; $i++)
	{
		my ($indent, $kind) = $lines[$i] =~ /^(\s*)```(\w*)\s*$/ or next;
		my $start = $i;
		my @body;
		push @body, $lines[$i] =~ s/^$indent//r while ++$i < @lines && $lines[$i] !~ /^\s*```\s*$/;

		if ($kind eq 'sql')
		{
			my ($state) = $start ? $lines[ $start - 1 ] =~ /<!--\s*error:\s*(\w{5})\s*-->/ : ();
			push @blocks, { line => $start + 1, sql => join("\n", @body, ''), state => $state, end => $i };
		}
		elsif ($kind eq 'text' && @blocks)
		{
			my @between = @lines[ $blocks[-1]{end} + 1 .. $start - 1 ];
			$blocks[-1]{text} = join "\n", @body unless grep { /\S/ } @between;
		}
	}
	return @blocks;
}

sub trimmed
{
	my ($text) = @_;
	$text =~ s/[ \t]+$//mg;
	$text =~ s/\A\n+|\n+\z//g;
	return $text;
}

# Errors as psql shows them to a person: without code, file and place in the
# server's source.
sub as_shown
{
	my ($err) = @_;
	$err =~ s/^psql:\S*:\d+: //mg;
	$err =~ s/^(\w+:  )\w{5}: /$1/mg;
	$err =~ s/^LOCATION: .*\n//mg;
	return $err;
}

# Runs a block in psql as a person sees it: (output, errors).
sub run_block
{
	my ($database, $sql) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/block.sql';
	my ($out, $err) = ('', '');

	append_to_file($file, $sql);
	IPC::Run::run([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose',
			'-d', $node->connstr($database), '-f', $file ], '>', \$out, '2>', \$err);
	return ($out, $err, $?);
}

my $checked = 0;
for my $name ('README.md', 'docs/reference.md')
{
	my @blocks = blocks("$root/$name");
	my $database = lc $name =~ s/\W/_/gr;

	ok(scalar @blocks, "$name shows SQL");
	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0");
	$node->safe_psql($database, 'CREATE EXTENSION usage_billing')
	  unless grep { $_->{sql} =~ /CREATE EXTENSION/i } @blocks;

	for my $block (@blocks)
	{
		my $place = "$name:$block->{line}";
		my ($out, $err, $status) = run_block($database, $block->{sql});
		my ($state) = $err =~ /ERROR:\s+(\w{5}):/;

		if ($block->{state})
		{
			is($state // 'no error', $block->{state}, "$place: fails as announced") or diag($block->{sql}, $err);
		}
		else
		{
			ok($status == 0, "$place: runs") or diag($block->{sql}, $err);
		}
		is(trimmed($out . as_shown($err)), trimmed($block->{text}), "$place: answers as shown")
		  if defined $block->{text};
		$checked++;
	}
}
note("$checked blocks");

$node->stop;
done_testing();
