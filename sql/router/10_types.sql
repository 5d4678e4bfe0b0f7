-- What the functions return, under the names that it has on a node.

CREATE TYPE usage_billing.usage_type AS ENUM ('credit', 'feature');

CREATE TYPE usage_billing.billing_account AS (
	billing_id		text COLLATE "C",
	org_id			text COLLATE "C",
	is_default		boolean,
	credit_min		bigint,
	state			text COLLATE "C",
	last_billed_at	timestamptz,
	metadata		jsonb,
	created_at		timestamptz,
	updated_at		timestamptz
);

CREATE TYPE usage_billing.project AS (
	project_id		text COLLATE "C",
	org_id			text COLLATE "C",
	created_at		timestamptz
);

CREATE TYPE usage_billing.usage_bucket AS (
	bucket_start	timestamptz,
	source			text,
	type			usage_billing.usage_type,
	events			bigint,
	amount			bigint
);

CREATE TYPE usage_billing.storage_usage AS (
	org_id				text,
	snapshot_date		date,
	last_updated		timestamptz,
	project_count		bigint,
	image_file_count	bigint,
	image_storage_bytes	bigint,
	video_file_count	bigint,
	video_storage_bytes	bigint,
	total_file_count	bigint,
	total_storage_bytes	bigint,
	total_video_minutes	text,
	max_image_count		bigint,
	max_video_count		bigint,
	max_project_count	bigint
);
