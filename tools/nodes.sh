# Sourced by bash, after server.sh, by what needs a router and its nodes.
#
#   nodes_start BUCKETS NODES SETTINGS    the router on node 0, buckets on the others
#   node_start N, node_control N CMD ...  one of them
#   dsn N DATABASE [ROLE], sql DSN ...

# One server more: its number is the end of its port, further settings are on
# standard input.
node_start()
{
	in_server_log "$tmp/initdb.log" initdb -D "$tmp/node$1" -U postgres -A trust -E UTF8 --no-locale -N ||
		{ cat "$tmp/initdb.log" >&2; return 1; }
	in_server tee -a "$tmp/node$1/postgresql.conf" >/dev/null <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$PGHOST'
		port = 5433$1
		wal_level = logical
		max_connections = 200
		max_worker_processes = 40
		shared_preload_libraries = 'usage_billing'
		timezone = 'UTC'
	CONF
	in_server tee -a "$tmp/node$1/postgresql.conf" >/dev/null
	node_control "$1" start
}
node_control() { in_server_log "$tmp/ctl.log" pg_ctl -D "$tmp/node$1" -l "$tmp/node$1.log" -s -w "${@:2}" || { cat "$tmp/node$1.log" >&2; return 1; }; }
dsn() { echo "host=$PGHOST port=5433$1 dbname=$2 user=${3:-postgres}"; }
sql() { in_server psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$@"; }

# The router on node 0, and so many buckets on nodes 1 to $2.
nodes_start()
{
	local buckets=$1 nodes=$2 settings=$3 n bucket connections=

	for n in $(seq 0 "$nodes"); do node_start "$n" <<<"$settings"; done
	for bucket in $(seq 0 $((buckets - 1))); do
		n=$((bucket * nodes / buckets + 1))
		sql "$(dsn $n postgres)" -c "CREATE DATABASE bucket_$bucket"
		sql "$(dsn $n "bucket_$bucket")" <examples/scale-out/node.sql
		connections="$connections${connections:+, }'$(dsn $n "bucket_$bucket" router)'"
	done
	sql "$(dsn 0 postgres)" -c 'CREATE DATABASE router'
	sql "$(dsn 0 router)" -c 'SET client_min_messages = warning; CREATE EXTENSION usage_billing_router CASCADE' \
		-c "SELECT usage_billing.set_buckets(ARRAY[$connections])" >/dev/null
}
