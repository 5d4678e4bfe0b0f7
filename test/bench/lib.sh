# shellcheck shell=bash
# What test/bench/run and test/bench/more share: the server, turns, the lines
# of the table. Sourced from the top of the project.

# serve on|off [SETTING=VALUE ...]: a server with the library preloaded, or
# without; restarted only if that changes something.
serve()
{
	local now="$*" setting
	[ "${serving:-}" != "$now" ] || return 0
	serving=$now
	{
		# What a server for this load would have; the rest is PostgreSQL's default.
		cat <<-CONF
			fsync = on
			full_page_writes = on
			synchronous_commit = on
			shared_buffers = '2GB'
			max_wal_size = '8GB'
			max_connections = 60
			statement_timeout = 0
		CONF
		[ "$1" != on ] || echo "shared_preload_libraries = 'usage_billing'"
		for setting in "${@:2}"; do
			echo "${setting%%=*} = '${setting#*=}'"
		done
	} >"$tmp/bench.conf"
	in_server cp "$tmp/bench.conf" "$tmp/data/bench.conf"
	in_server pg_ctl -D "$tmp/data" -l "$tmp/server.log" -s -w restart
}

bench_begin()
{
	server_begin
	server_install
	server_start
	echo "include_if_exists 'bench.conf'" | in_server tee -a "$tmp/data/postgresql.conf" >/dev/null
	[ "${NICE:-0}" -eq 0 ] || renice -n "$NICE" -p "$$" >/dev/null
}

sql() { in_server psql -X -q -A -t -v ON_ERROR_STOP=on "$@"; }

# "PostgreSQL 15.1, 2 × AMD EPYC, 23 GB" and so on.
machine()
{
	echo "PostgreSQL $(sql -c 'SHOW server_version'), $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)," \
		"$(awk '/^MemTotal/ { printf "%.0f GB", $2 / 1048576 }' /proc/meminfo), $(uname -sr)"
}

# pgbench SCRIPT CLIENTS OPTIONS ...: its report.
bench()
{
	in_server pgbench -n -M prepared -c "$2" -j 2 -f "test/bench/$1.sql" "${@:3}" 2>>"$tmp/pgbench.log"
}

# Transactions a second.
rate()
{
	bench "$1" "$2" -T "$SECONDS_EACH" --max-tries=0 "${@:3}" | awk '/^tps/ { print $3 }'
}

# Milliseconds a transaction; N of them, one after the other.
latency()
{
	bench "$1" 1 -t "$2" "${@:3}" | awk '/^latency average/ { print $4 }'
}

median() { sort -g | awk '{ a[NR] = $1 } END { if (NR) print NR % 2 ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2 }'; }

header()
{
	printf '%-60s %14s %14s %9s  %-9s %s\n' comparison ours other ratio goal holds
}

# report NAME GOAL UNIT KIND: a line of the table from pairs "ours other" on
# standard input. The ratio says how many times faster ours is (KIND time or
# rate), or how many times what the other costs (cost). KIND amount: there is
# no other, and the goal is one for ours.
report()
{
	awk -v name="$1" -v goal="$2" -v unit="$3" -v kind="$4" '
		function median(a, n,    i, j, t) {
			for (i = 1; i < n; i++) for (j = i + 1; j <= n; j++) if (a[j] < a[i]) { t = a[i]; a[i] = a[j]; a[j] = t }
			return n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2
		}
		function show(value) { return sprintf(value < 100 ? "%.2f %s" : "%.0f %s", value, unit) }
		NF == 2 || NF == 1 && kind == "amount" {
			n++; o[n] = $1; x[n] = $2
			if (kind != "amount") r[n] = kind == "time" ? $2 / $1 : $1 / $2
		}
		END {
			if (n == 0) { print name ": nothing was measured"; exit 1 }
			ours = median(o, n)
			judged = kind == "amount" ? ours : median(r, n)
			split(goal, g, " ")
			holds = g[1] == ">=" ? judged >= g[2] : g[1] == "<=" ? judged <= g[2] : -1
			printf "%-60s %14s %14s %9s  %-9s %s\n", name, show(ours), kind == "amount" ? "" : show(median(x, n)),
				kind == "amount" ? "" : sprintf("%.2f x", judged), goal, holds < 0 ? "" : holds ? "yes" : "NO"
		}'
}
