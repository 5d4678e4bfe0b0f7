# Many clients on one account of a preloaded server, where nobody waits for
# anybody's transaction: all that 003_hot_account.pl asks holds there too.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use BillingNode;

$ENV{HOT_PRELOADED} = 1;
do "$FindBin::Bin/003_hot_account.pl" // die $@ || $!;
