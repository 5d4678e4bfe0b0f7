-- Loads what trend_rows.sql writes; :peak is where its memory goes.
SELECT pg_backend_pid() AS pid \gset
\setenv BACKEND :pid
\setenv PEAK :peak
\! test/bench/peak "$BACKEND" >"$PEAK" &
\copy usage_billing.usage (billing_id, id, type, amount, source, metadata, created_at) FROM pstdin
