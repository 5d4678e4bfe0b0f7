# shellcheck shell=bash
# A private copy of the installed PostgreSQL with this extension in it, and a
# throwaway cluster; sourced by test/run and tools/demo. The machine's own
# installation and clusters are not touched. Everything lives under one
# directory in /tmp and goes when the sourcing script ends, however it ends.
#
#   server_begin            makes the directory $tmp, with a copy of the project in $tmp/project
#   server_install OPTIONS  builds the copy, with these options for the compiler too, and installs it into the private server
#   server_start            starts a cluster: a socket in $tmp, no port
#   server_preload SETTING  restarts it with the library preloaded and one more setting
#   in_server CMD ...       runs CMD as the server's user; a signal to the script ends it
#   in_server_log FILE ...  the same with its output to FILE
#   stop_servers DIRECTORY  stops all that have their data under it
# PG_CONFIG chooses the server, CHECKED what it runs under (tools/checked.sh).
# After server_begin: bindir, pgxs, tmp.

. "$(dirname "${BASH_SOURCE[0]}")/checked.sh"

PG_CONFIG=${PG_CONFIG:-pg_config}
tmp=
child=

server_begin()
{
	local top
	top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

	if ! command -v "$PG_CONFIG" >/dev/null; then
		echo "$PG_CONFIG is missing: run make deps" >&2
		exit 1
	fi
	# the private server's own comes first in PATH later
	PG_CONFIG=$(command -v "$PG_CONFIG")
	# shellcheck disable=SC2034
	pgxs=$(dirname "$("$PG_CONFIG" --pgxs)")/../..

	# PostgreSQL refuses to run as root.
	as_server=()
	server_user=$(id -un)
	if [ "$(id -u)" -eq 0 ]; then
		server_user=postgres
		as_server=(setpriv --reuid=postgres --regid=postgres --init-groups)
	fi

	trap server_end EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	tmp=$(mktemp -d /tmp/usage_billing.XXXXXX)
	chmod 755 "$tmp"

	# The checkout may be unreadable for the server's user, and its objects
	# may come from another compiler or server version.
	mkdir "$tmp/project" "$tmp/home" "$tmp/short"
	tar -C "$top" --exclude=./.git --exclude='*.o' --exclude='*.so' \
		--exclude='*.bc' -cf - . | tar -C "$tmp/project" --no-same-owner -xf -
	unset USAGE_BILLING_DATA
	if [ -d "$top/../shared/data" ]; then
		mkdir -p "$tmp/shared/data"
		cp "$top"/../shared/data/*.csv "$tmp/shared/data/"
		chmod -R u+w,a+rX "$tmp/shared"
		# Absent where the real input is: what needs it skips.
		export USAGE_BILLING_DATA=$tmp/shared/data
	fi
	[ "${#as_server[@]}" -eq 0 ] || chown -R "$server_user:" "$tmp"

	server_environment
}

# What a caller's settings could change in a client's output is gone; what
# the tests need is there.
server_environment()
{
	local name

	for name in $(compgen -e PG); do
		case $name in PG_MAJOR | PG_CONFIG) ;; *) unset "$name" ;; esac
	done
	unset LANGUAGE LC_ALL CDPATH MAKEFLAGS MAKELEVEL MFLAGS
	export LANG=C.UTF-8 HOME=$tmp/home TMPDIR=$tmp/short
	bindir=$tmp/server$("$PG_CONFIG" --bindir)
	export PATH=$bindir:$PATH
	export PGHOST=$tmp/short PGPORT=54329 PGUSER=postgres PGDATABASE=postgres
	cd "$tmp/project" || exit
}

# The server finds its files relative to its own program, so a copy of the
# programs beside links to the rest is a server of its own.
# shellcheck disable=SC2120
server_install()
{
	local dir options

	options=$(checked_options)
	for dir in --pkglibdir --sharedir; do
		dir=$("$PG_CONFIG" $dir)
		in_server mkdir -p "$tmp/server$dir"
		in_server cp -rsf "$dir/." "$tmp/server$dir/"
		in_server find "$tmp/server$dir" -name 'usage_billing*' -delete
	done
	dir=$("$PG_CONFIG" --bindir)
	in_server mkdir -p "$tmp/server$dir"
	in_server cp -f "$dir"/* "$tmp/server$dir/"
	in_server make -s --no-print-directory PG_CONFIG="$PG_CONFIG" \
		DESTDIR="$tmp/server" COPT="$* $options" clean install
	checked_install
}

server_start()
{
	in_server_log "$tmp/initdb.log" initdb -D "$tmp/data" -U postgres -A trust \
		-E UTF8 --no-locale -N || { cat "$tmp/initdb.log" >&2; return 1; }
	local patience=10min

	[ "${CHECKED:-}" != valgrind ] || patience=0
	in_server tee -a "$tmp/data/postgresql.conf" >"$tmp/settings" <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$PGHOST'
		port = $PGPORT
		fsync = off
		full_page_writes = off
		max_prepared_transactions = 20
		timezone = 'UTC'
		log_line_prefix = '%m [%p] %q%d '
		statement_timeout = $patience
	CONF
	in_server_log "$tmp/start.log" pg_ctl -D "$tmp/data" -l "$tmp/server.log" \
		-s -w start || { cat "$tmp/start.log" "$tmp/server.log" >&2; return 1; }
}

server_preload()
{
	printf '%s\n' "shared_preload_libraries = 'usage_billing'" "$1" |
		in_server tee -a "$tmp/data/postgresql.conf" >"$tmp/settings"
	in_server_log "$tmp/start.log" pg_ctl -D "$tmp/data" -l "$tmp/server.log" \
		-s -w restart || { cat "$tmp/start.log" "$tmp/server.log" >&2; return 1; }
}

# In a process group of its own and waited for, so that a signal to this script
# is acted on at once and reaches all that the command started.
in_server()
{
	local status=0

	setsid "${as_server[@]}" "$@" <&0 &
	child=$!
	wait "$child" || status=$?
	child=
	return "$status"
}

in_server_log()
{
	local log=$1
	shift
	in_server "$@" >"$log" 2>&1 </dev/null
}

# Stops every server that has its data under a directory of ours.
stop_servers()
{
	local file pid

	{ find "$1" -ignore_readdir_race -name postmaster.pid || :; } | while read -r file; do
		read -r pid <"$file" || continue
		[ "$(readlink "/proc/$pid/cwd")" = "${file%/*}" ] || continue
		"${as_server[@]}" "$bindir/pg_ctl" -D "${file%/*}" -m immediate -s -w stop || :
	done
}

server_end()
{
	local status=$?

	trap '' HUP INT TERM
	[ -n "$tmp" ] || return
	if [ -n "$child" ]; then
		kill -TERM -- "-$child" 2>/dev/null || :
		for _ in $(seq 100); do
			kill -0 -- "-$child" 2>/dev/null || break
			sleep 0.1
		done
		kill -KILL -- "-$child" 2>/dev/null || :
	fi
	# also those that a test left
	stop_servers "$tmp"
	cd /
	rm -rf "$tmp" || { sleep 1; rm -rf "$tmp"; }
	exit "$status"
}
