-- Samples as hosts measured them, and the proof that each batch counted once.

-- One row per spool file of a host. contiguous_seq: everything up to it is stored or known lost.
CREATE TABLE node_spools (
  spool_no integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  node_id uuid NOT NULL REFERENCES nodes,
  spool_id uuid NOT NULL,
  contiguous_seq bigint NOT NULL DEFAULT 0,
  complete_until timestamptz,
  -- Set while the spool belongs to a machine whose certificate is revoked: its samples are rejected.
  refused_since timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (node_id, spool_id)
) WITH (fillfactor = 50);

-- Settled ranges above the watermark. complete_until comes into force when the watermark passes them.
CREATE TABLE node_spool_pending (
  spool_no integer NOT NULL REFERENCES node_spools,
  seq_from bigint NOT NULL,
  seq_to bigint NOT NULL,
  complete_until timestamptz,
  PRIMARY KEY (spool_no, seq_from),
  CHECK (seq_to >= seq_from)
);

-- Settled numbers for which nothing is stored: lost on the host or kept as dead letters. Their time is
-- "missing". A number that arrives after all leaves its gap and counts.
CREATE TABLE node_spool_gaps (
  spool_no integer NOT NULL REFERENCES node_spools,
  seq_from bigint NOT NULL,
  seq_to bigint NOT NULL,
  noticed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (spool_no, seq_from)
);

-- What a batch covered, so that "not running" and "missing" can be told apart.
CREATE TABLE node_coverage (
  spool_no integer NOT NULL REFERENCES node_spools,
  seq_from bigint NOT NULL,
  covers_from timestamptz NOT NULL,
  covers_to timestamptz NOT NULL,
  unreadable_vmids integer[] NOT NULL DEFAULT '{}',
  unsynchronised boolean NOT NULL DEFAULT false,
  PRIMARY KEY (spool_no, seq_from)
);
CREATE INDEX node_coverage_by_time ON node_coverage (covers_to);

-- Days (UTC) whose partition was ever made. Sealing freezes a day's figures and comes before its partition
-- goes. Ingest holds a shared advisory lock on the days that it writes to, sealing an exclusive one
-- (control-plane/src/samples-intake/usage-days.ts).
CREATE TABLE usage_days (
  day date PRIMARY KEY,
  made_at timestamptz NOT NULL DEFAULT now(),
  sealed_at timestamptz
);

-- A sample is [start_time, sample_time); integrals and maxima, so merging is addition. Daily partitions,
-- made ahead; no default partition. A partition begins 1 ms after midnight: a sample belongs to the day
-- of its last millisecond, and one that ends at midnight to the day that ends there.
CREATE TABLE cloud_pod_usage_samples (
  pod_id uuid NOT NULL,
  sample_time timestamptz NOT NULL,
  spool_no integer NOT NULL,
  seq bigint NOT NULL,
  start_time timestamptz NOT NULL,
  running_ms integer NOT NULL,
  cpu_usage_us bigint NOT NULL,
  cpu_max_basis_points integer NOT NULL,
  memory_byte_ms bigint NOT NULL,
  memory_max_bytes bigint NOT NULL,
  disk_byte_ms bigint NOT NULL,
  disk_max_bytes bigint NOT NULL,
  guest_in_bytes bigint NOT NULL,
  guest_out_bytes bigint NOT NULL,
  io_read_bytes bigint NOT NULL,
  io_write_bytes bigint NOT NULL,
  sample_count integer NOT NULL,
  cores integer NOT NULL,
  memory_mb integer NOT NULL,
  disk_gb integer NOT NULL,
  incarnation text NOT NULL,
  PRIMARY KEY (pod_id, sample_time, spool_no, seq)
) PARTITION BY RANGE (sample_time);

-- Samples of hours that were already sealed: not partitioned, merged into the sealed figures.
CREATE TABLE cloud_pod_usage_late_samples (
  LIKE cloud_pod_usage_samples INCLUDING CONSTRAINTS,
  received_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (pod_id, sample_time, spool_no, seq)
);

-- Appended with each ingest transaction, one per (hour, host); consumed by the roll-up.
CREATE TABLE usage_dirty_hours (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  hour_start timestamptz NOT NULL,
  node_id uuid NOT NULL
);
CREATE INDEX usage_dirty_hours_by_hour ON usage_dirty_hours (hour_start);

-- Usage that arrived after its month was closed.
CREATE TABLE usage_adjustments (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants,
  pod_id uuid NOT NULL,
  year_month char(7) NOT NULL,
  amount numeric(20, 10) NOT NULL,
  currency char(3) NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  settled_at timestamptz
);

-- Messages that could not be understood or contradict what is known.
CREATE TABLE telemetry_dead_letters (
  id uuid PRIMARY KEY,
  node_id uuid,
  topic text NOT NULL,
  reason text NOT NULL,
  detail text NOT NULL DEFAULT '',
  payload bytea NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX telemetry_dead_letters_by_time ON telemetry_dead_letters (received_at);

-- Samples that were understood and not believed; kept 400 days, can be driven again.
CREATE TABLE usage_rejected_samples (
  id uuid PRIMARY KEY,
  node_id uuid NOT NULL,
  spool_no integer NOT NULL,
  seq bigint NOT NULL,
  reason text NOT NULL,
  sample jsonb NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX usage_rejected_samples_by_time ON usage_rejected_samples (received_at);
