# shellcheck shell=bash disable=SC2154
# The server under a checker, for tools/server.sh. CHECKED chooses:
#   sanitize   the extension is built with AddressSanitizer and
#              UndefinedBehaviorSanitizer, and the server gets their runtime
#   valgrind   the server's processes run under valgrind's memcheck
# What a checker finds lies in $CHECKED_REPORTS and fails the run that started
# it. Neither sees through the server's own allocator: a chunk of palloc is a
# part of a block of malloc, so only what leaves the block is noticed.

# What the compiler is told. Overflows are undefined here, which they are not in
# the server's own build (-fwrapv), so that one that nobody meant is seen.
checked_options()
{
	case ${CHECKED:-} in
		sanitize)
			echo -fsanitize=address,undefined -fno-sanitize-recover=all -fno-wrapv \
				-fno-omit-frame-pointer -O1
			;;
		valgrind) echo -O1 ;;
		'') ;;
		*)
			echo "CHECKED is $CHECKED; it must be sanitize or valgrind" >&2
			return 2
			;;
	esac
}

# Puts a script in the place of the private server's program.
checked_install()
{
	local real=$bindir/postgres.real asan

	[ -n "${CHECKED:-}" ] || return 0
	# A test that makes a server of its own reports to the run that it is part of.
	if [ -z "${CHECKED_REPORTS:-}" ]; then
		export CHECKED_REPORTS=$tmp/reports
		in_server mkdir -p "$CHECKED_REPORTS"
	fi
	in_server mv "$bindir/postgres" "$real"
	case $CHECKED in
		sanitize)
			asan=$(gcc -print-file-name=libasan.so)
			in_server gcc -shared -fPIC -Wl,-z,initfirst -o "$tmp/server/asan_first.so" tools/asan_first.c
			in_server tee "$bindir/postgres" >/dev/null <<-SH
				#!/bin/bash
				# Leaks: the server leaves its memory to the system when it ends.
				ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1
				ASAN_OPTIONS=\$ASAN_OPTIONS:quarantine_size_mb=16:abort_on_error=1:log_path=$CHECKED_REPORTS/address
				UBSAN_OPTIONS=print_stacktrace=1
				LD_PRELOAD="$asan $tmp/server/asan_first.so"
				export ASAN_OPTIONS UBSAN_OPTIONS LD_PRELOAD
				exec -a "\$0" "$real" "\$@"
			SH
			;;
		valgrind)
			in_server tee "$bindir/postgres" >/dev/null <<-SH
				#!/bin/sh
				# Making a cluster and telling the version needs no check.
				case \$1 in
					--boot | --single | --check | -C | -V | --version) exec "$real" "\$@" ;;
				esac
				exec valgrind --quiet --trace-children=no --leak-check=no \\
					--num-callers=40 --suppressions=$tmp/project/tools/valgrind.supp \\
					--xml=yes --xml-file=$CHECKED_REPORTS/valgrind.%p.xml "$real" "\$@"
			SH
			;;
	esac
	in_server chmod 755 "$bindir/postgres"
}

# Prints what was found, and fails if that is anything. Valgrind's errors count
# where the extension is on the stack: the server's own are not ours to mend.
checked_reports()
{
	local found=0 file

	case ${CHECKED:-} in
		sanitize)
			for file in "$CHECKED_REPORTS"/*; do
				[ -s "$file" ] || continue
				head -n 60 "$file"
				found=1
			done
			;;
		valgrind)
			perl -0777 -e '
				my %seen;
				for (map { my $xml = $_; $xml =~ m{<error>.*?</error>}gs } <>)
				{
					# its first stack is where it happened
					next if m{<kind>Leak_} || !m{<stack>((?:(?!</stack>).)*)</stack>}s || $1 !~ m{/usage_billing\.so</obj>};
					my ($what) = m{<(?:what|text)>(.*?)</(?:what|text)>}s;
					my @frames = map { join " ", m{<(?:fn|file|line)>(.*?)</}g } m{<frame>(.*?)</frame>}gs;
					my $error = join "\n    ", $what, @frames;
					print "$error\n" unless $seen{$error}++;
				}
				exit(%seen ? 1 : 0);' "$CHECKED_REPORTS"/valgrind.*.xml || found=1
			;;
	esac
	return "$found"
}
