-- Usage by hour, day and month (UTC), made from samples. Every figure is an exact integer that can be added,
-- a maximum, or a set of milliseconds that can be united: so a late sample is merged, not estimated.

-- Milliseconds of an instant since the start of an hour, kept inside the hour.
CREATE FUNCTION ms_in_hour(at timestamptz, hour_start timestamptz) RETURNS integer
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  RETURN floor(least(3600000, greatest(0, date_part('epoch', at - hour_start) * 1000 + 0.0005)))::integer;

-- Milliseconds between two instants, each cut to its millisecond, so that stretches that meet also add up. Since a
-- fixed instant, because the epoch of an instant counts as stable and would keep the function from being inlined.
CREATE FUNCTION ms_between(first timestamptz, last timestamptz) RETURNS bigint
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  RETURN floor(date_part('epoch', last - timestamptz '2000-01-01T00:00:00Z') * 1000 + 0.0005)::bigint
    - floor(date_part('epoch', first - timestamptz '2000-01-01T00:00:00Z') * 1000 + 0.0005)::bigint;

-- Length of a set of milliseconds. Apart from the sets with gaps, which are few, it is inlined.
CREATE FUNCTION gapped_length_ms(covered int4multirange) RETURNS integer
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN (SELECT coalesce(sum(upper(piece) - lower(piece)), 0)::integer FROM unnest(covered) AS piece);
CREATE FUNCTION length_ms(covered int4multirange) RETURNS integer
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN CASE
    WHEN isempty(covered) THEN 0
    WHEN int4multirange(range_merge(covered)) = covered THEN upper(covered) - lower(covered)
    ELSE gapped_length_ms(covered)
  END;

-- A CPU histogram is a list of bucket * 2^32 + milliseconds; bucket n is the share of all cores from n % on
-- (100: all of them). Lists are merged by putting them together and adding equal buckets.

-- The lowest bucket below or in which at least 95 % of the time lies (nearest rank, weighted by time).
CREATE FUNCTION histogram_p95(entries bigint[]) RETURNS smallint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN (SELECT min(bucket)::smallint FROM (
    SELECT entry >> 32 AS bucket, sum(entry & 4294967295) OVER (ORDER BY entry >> 32) AS up_to, sum(entry & 4294967295) OVER () AS whole
    FROM unnest(entries) AS entry WHERE entry IS NOT NULL) AS ranked WHERE 100 * up_to >= 95 * whole);

-- Finds the samples of an hour in a day of millions: rows lie nearly in the order of time.
CREATE INDEX cloud_pod_usage_samples_by_time ON cloud_pod_usage_samples USING brin (sample_time, start_time)
  WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX cloud_pod_usage_late_samples_by_time ON cloud_pod_usage_late_samples (sample_time);

-- Who archives: whoever begins ends the turn of all before him (control-plane/src/metering/archive-turn.ts).
CREATE TABLE usage_archiving (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  turn bigint NOT NULL
);
INSERT INTO usage_archiving (turn) VALUES (0);

-- Hours that were made for the whole fleet; from then on only marks make them again.
CREATE TABLE usage_hours (
  hour_start timestamptz PRIMARY KEY,
  rolled_at timestamptz NOT NULL DEFAULT now()
);

-- A mark names a host (its samples came) or a pod (what it was has changed).
ALTER TABLE usage_dirty_hours ALTER COLUMN node_id DROP NOT NULL, ADD COLUMN pod_id uuid,
  ADD CONSTRAINT a_mark_names_one CHECK (num_nonnulls(node_id, pod_id) = 1);

-- The life of a day: open, sealed (its samples are archived and their partition dropped), and 30 days after
-- its month was closed its hours are archived too. What comes later is added to the level that is left.
ALTER TABLE usage_days ADD COLUMN archived_at timestamptz, ADD COLUMN dropped_at timestamptz,
  ADD COLUMN hours_archived_at timestamptz, ADD COLUMN hours_archive_sha256 bytea;
-- After a year a month's days are archived.
CREATE TABLE usage_months (
  year_month char(7) PRIMARY KEY,
  days_archived_at timestamptz NOT NULL,
  days_archive_sha256 bytea NOT NULL
);
-- Not the start of the transaction: it may have waited for a sealing, and counts as after it.
ALTER TABLE cloud_pod_usage_late_samples ALTER COLUMN received_at SET DEFAULT clock_timestamp();

-- Marks of days and months: appended by the level below in its transaction. pod_ids NULL: all pods.
CREATE TABLE usage_dirty_days (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  date date NOT NULL,
  pod_ids uuid[]
);
CREATE TABLE usage_dirty_months (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  year_month char(7) NOT NULL,
  pod_ids uuid[]
);

-- Hours of a time that are made or may be being made at this moment, be it by somebody who catches up: what changes
-- in them needs a mark. Older hours that nobody has made are made with what is known then.
CREATE FUNCTION hours_to_mark(changed tstzrange) RETURNS SETOF timestamptz LANGUAGE sql STABLE AS $$
  SELECT hour_start FROM usage_hours
  WHERE hour_start > lower(changed) - interval '1 hour' AND hour_start < coalesce(upper(changed), 'infinity')
  UNION
  SELECT last_made + step * interval '1 hour' FROM (SELECT max(hour_start) AS last_made FROM usage_hours) AS made, generate_series(1, 3) AS step
  WHERE last_made + (step + 1) * interval '1 hour' > lower(changed) AND last_made + step * interval '1 hour' < coalesce(upper(changed), 'infinity')
  UNION
  SELECT hour FROM generate_series(
    date_bin('1 hour', greatest(lower(changed), clock_timestamp() - interval '7 days'), '2000-01-01Z'), clock_timestamp(), '1 hour') AS hour
  WHERE hour < coalesce(upper(changed), 'infinity')
$$;

-- When a host could not be reached. After an hour of it neither disk nor plan of its pods accrues.
CREATE TABLE node_outages (
  node_id uuid NOT NULL REFERENCES nodes,
  period tstzrange NOT NULL,
  CONSTRAINT one_outage_at_a_time EXCLUDE USING gist (node_id WITH =, period WITH &&)
);

CREATE FUNCTION record_outage() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE was_away boolean := TG_OP = 'UPDATE' AND OLD.state IN ('offline', 'lost');
BEGIN
  IF NEW.state IN ('offline', 'lost') AND NOT was_away THEN
    INSERT INTO node_outages (node_id, period)
    SELECT NEW.node_id, tstzrange(NEW.state_since, NULL)
    WHERE NOT EXISTS (SELECT FROM node_outages o WHERE o.node_id = NEW.node_id AND o.period && tstzrange(NEW.state_since, NULL));
  ELSIF NEW.state IN ('online', 'degraded') THEN
    -- One that ends where it began never was.
    DELETE FROM node_outages WHERE node_id = NEW.node_id AND upper_inf(period) AND lower(period) >= NEW.state_since;
    UPDATE node_outages SET period = tstzrange(lower(period), NEW.state_since) WHERE node_id = NEW.node_id AND upper_inf(period);
  ELSE
    RETURN NULL;
  END IF;
  INSERT INTO usage_dirty_hours (hour_start, node_id)
  SELECT hour, NEW.node_id FROM hours_to_mark(tstzrange(NEW.state_since, NULL)) AS hour;
  RETURN NULL;
END $$;
CREATE TRIGGER node_outages_are_recorded AFTER INSERT OR UPDATE OF state ON node_status FOR EACH ROW EXECUTE FUNCTION record_outage();

-- What a pod was has changed: the hours in which it has are made again.
CREATE FUNCTION mark_allocated_hours() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE changed tstzrange; pod uuid;
BEGIN
  IF TG_OP = 'INSERT' THEN changed := NEW.valid; pod := NEW.pod_id;
  ELSIF TG_OP = 'DELETE' THEN changed := OLD.valid; pod := OLD.pod_id;
  ELSIF lower(NEW.valid) = lower(OLD.valid) AND to_jsonb(NEW) - 'valid' = to_jsonb(OLD) - 'valid' THEN
    -- Only the end moved.
    changed := tstzrange(least(upper(NEW.valid), upper(OLD.valid)), nullif(greatest(coalesce(upper(NEW.valid), 'infinity'), coalesce(upper(OLD.valid), 'infinity')), 'infinity'));
    pod := NEW.pod_id;
  ELSE
    changed := range_merge(NEW.valid, OLD.valid); pod := NEW.pod_id;
  END IF;
  INSERT INTO usage_dirty_hours (hour_start, pod_id)
  SELECT hour, pod FROM hours_to_mark(changed) AS hour WHERE NOT isempty(changed);
  RETURN NULL;
END $$;
CREATE TRIGGER allocated_hours_are_marked AFTER INSERT OR UPDATE OR DELETE ON cloud_pod_allocations
  FOR EACH ROW EXECUTE FUNCTION mark_allocated_hours();

-- Nobody pays for a pod whose removal he has asked for, however long its host takes and even if it fails. Tenants'
-- login may not write the history of pods, so it is done here, as the owner.
CREATE FUNCTION end_allocation() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  DELETE FROM cloud_pod_allocations WHERE pod_id = NEW.id AND upper_inf(valid) AND lower(valid) >= NEW.deletion_requested_at;
  UPDATE cloud_pod_allocations SET valid = tstzrange(lower(valid), NEW.deletion_requested_at) WHERE pod_id = NEW.id AND upper_inf(valid);
  RETURN NULL;
END $$;
CREATE TRIGGER allocations_end_with_the_wish AFTER UPDATE OF deletion_requested_at ON cloud_pods FOR EACH ROW
  WHEN (NEW.deletion_requested_at IS NOT NULL AND OLD.deletion_requested_at IS NULL) EXECUTE FUNCTION end_allocation();

-- One row per pod and hour in which the pod existed, with or without samples. tenant_id is the pod's, copied
-- where the row is made; a foreign key would be checked a million times a day for nothing.
CREATE TABLE cloud_pod_usage_hourly (
  hour_start timestamptz NOT NULL,
  pod_id uuid NOT NULL,
  tenant_id uuid NOT NULL,
  -- Measured. A sample's quantities belong to the hour of its last millisecond; its time is split at the hour.
  sample_count bigint NOT NULL,
  covered int4multirange NOT NULL,        -- ms inside the hour in which the pod ran
  uptime_ms bigint NOT NULL,              -- length of covered
  running_ms bigint NOT NULL,             -- sum over the samples: the weight of averages
  cpu_usage_us bigint NOT NULL,
  cpu_capacity_ms bigint NOT NULL,        -- sum of cores * running_ms: the whole that percentages are of
  cpu_max_basis_points integer NOT NULL,
  cpu_histogram bigint[] NOT NULL,
  memory_byte_ms numeric(30) NOT NULL,
  memory_max_bytes bigint NOT NULL,
  disk_byte_ms numeric(30) NOT NULL,
  disk_max_bytes bigint NOT NULL,
  guest_in_bytes bigint NOT NULL,
  guest_out_bytes bigint NOT NULL,
  io_read_bytes bigint NOT NULL,
  io_write_bytes bigint NOT NULL,
  -- [ms in the hour, in, out] of each sample, only where rates change inside the hour.
  traffic_points jsonb,
  -- The pod's time by what is known of it; the four sum to its existence in the hour.
  measured_ms bigint NOT NULL,
  late_ms bigint NOT NULL,                -- came after the hour was final
  not_running_ms bigint NOT NULL,
  missing_ms bigint NOT NULL,
  -- Charged: what the pod was, times how long. Under a plan the quantities count and cost nothing by themselves.
  core_ms bigint NOT NULL,                -- cores * uptime
  memory_mb_ms bigint NOT NULL,           -- memory * uptime
  disk_gb_ms bigint NOT NULL,             -- disk * existence
  billable_in_bytes bigint NOT NULL,
  billable_out_bytes bigint NOT NULL,
  plan_out_bytes bigint NOT NULL,         -- under a plan: counts against its allowance
  unpriced_ms bigint NOT NULL,            -- existence for which no price was in force
  allowance_gb integer,                   -- of the plan a month, where going beyond it is charged
  currency char(3) NOT NULL,
  cost_cpu numeric(20, 10) NOT NULL,
  cost_memory numeric(20, 10) NOT NULL,
  cost_disk numeric(20, 10) NOT NULL,
  cost_network_in numeric(20, 10) NOT NULL,
  cost_network_out numeric(20, 10) NOT NULL,
  cost_plan numeric(20, 10) NOT NULL,
  cost_total numeric(20, 10) NOT NULL GENERATED ALWAYS AS (cost_cpu + cost_memory + cost_disk + cost_network_in + cost_network_out + cost_plan) STORED,
  -- Final: nothing more is expected. timely is what was covered then.
  final_at timestamptz,
  timely int4multirange,
  -- Sealed: its samples are in the archive. sealed_base keeps the measured figures of that moment as soon as a
  -- late sample is merged with them.
  sealed_at timestamptz,
  sealed_base jsonb,
  archive_samples bigint,
  archive_digest bigint,                  -- of the measured figures when the samples were archived
  archive_sha256 bytea,                   -- of the file with the samples
  -- Only what came after the row itself had been archived; existence was charged by that row.
  supplement boolean NOT NULL DEFAULT false,
  rolled_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT no_negative_time CHECK (least(measured_ms, late_ms, not_running_ms, missing_ms, uptime_ms) >= 0),
  PRIMARY KEY (hour_start, pod_id)
);
CREATE INDEX cloud_pod_usage_hourly_of_tenant ON cloud_pod_usage_hourly (tenant_id, pod_id, hour_start);
CREATE INDEX cloud_pod_usage_hourly_open ON cloud_pod_usage_hourly (hour_start) WHERE final_at IS NULL;

CREATE TABLE cloud_pod_usage_daily (
  date date NOT NULL,                     -- UTC
  pod_id uuid NOT NULL,
  tenant_id uuid NOT NULL,
  sample_count bigint NOT NULL,
  uptime_ms bigint NOT NULL,
  running_ms bigint NOT NULL,
  cpu_usage_us bigint NOT NULL,
  cpu_capacity_ms bigint NOT NULL,
  cpu_max_basis_points integer NOT NULL,
  cpu_histogram bigint[] NOT NULL,
  memory_byte_ms numeric(30) NOT NULL,
  memory_max_bytes bigint NOT NULL,
  disk_byte_ms numeric(30) NOT NULL,
  disk_max_bytes bigint NOT NULL,
  guest_in_bytes bigint NOT NULL,
  guest_out_bytes bigint NOT NULL,
  io_read_bytes bigint NOT NULL,
  io_write_bytes bigint NOT NULL,
  measured_ms bigint NOT NULL,
  late_ms bigint NOT NULL,
  not_running_ms bigint NOT NULL,
  missing_ms bigint NOT NULL,
  core_ms bigint NOT NULL,
  memory_mb_ms bigint NOT NULL,
  disk_gb_ms bigint NOT NULL,
  billable_in_bytes bigint NOT NULL,
  billable_out_bytes bigint NOT NULL,
  plan_out_bytes bigint NOT NULL,
  unpriced_ms bigint NOT NULL,
  currency char(3) NOT NULL,
  cost_cpu numeric(20, 10) NOT NULL,
  cost_memory numeric(20, 10) NOT NULL,
  cost_disk numeric(20, 10) NOT NULL,
  cost_network_in numeric(20, 10) NOT NULL,
  cost_network_out numeric(20, 10) NOT NULL,
  cost_plan numeric(20, 10) NOT NULL,
  cost_total numeric(20, 10) NOT NULL GENERATED ALWAYS AS (cost_cpu + cost_memory + cost_disk + cost_network_in + cost_network_out + cost_plan) STORED,
  hours integer NOT NULL,
  sealed_base jsonb,                      -- what it was when its hours were archived, once something came after
  supplement boolean NOT NULL DEFAULT false,
  rolled_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT no_negative_time CHECK (least(measured_ms, late_ms, not_running_ms, missing_ms, uptime_ms) >= 0),
  PRIMARY KEY (date, pod_id)
);
CREATE INDEX cloud_pod_usage_daily_of_tenant ON cloud_pod_usage_daily (tenant_id, pod_id, date);

CREATE TABLE cloud_pod_usage_monthly (
  year_month char(7) NOT NULL,
  pod_id uuid NOT NULL,
  tenant_id uuid NOT NULL,
  sample_count bigint NOT NULL,
  uptime_ms bigint NOT NULL,
  running_ms bigint NOT NULL,
  cpu_usage_us bigint NOT NULL,
  cpu_capacity_ms bigint NOT NULL,
  cpu_max_basis_points integer NOT NULL,
  memory_byte_ms numeric(30) NOT NULL,
  memory_max_bytes bigint NOT NULL,
  disk_byte_ms numeric(30) NOT NULL,
  disk_max_bytes bigint NOT NULL,
  guest_in_bytes bigint NOT NULL,
  guest_out_bytes bigint NOT NULL,
  io_read_bytes bigint NOT NULL,
  io_write_bytes bigint NOT NULL,
  measured_ms bigint NOT NULL,
  late_ms bigint NOT NULL,
  not_running_ms bigint NOT NULL,
  missing_ms bigint NOT NULL,
  core_ms bigint NOT NULL,
  memory_mb_ms bigint NOT NULL,
  disk_gb_ms bigint NOT NULL,
  billable_in_bytes bigint NOT NULL,
  billable_out_bytes bigint NOT NULL,
  plan_out_bytes bigint NOT NULL,
  overage_bytes bigint NOT NULL,          -- beyond the plan's allowance of the month and charged
  unpriced_ms bigint NOT NULL,
  currency char(3) NOT NULL,
  cost_cpu numeric(20, 10) NOT NULL,
  cost_memory numeric(20, 10) NOT NULL,
  cost_disk numeric(20, 10) NOT NULL,
  cost_network_in numeric(20, 10) NOT NULL,
  cost_network_out numeric(20, 10) NOT NULL,
  cost_plan numeric(20, 10) NOT NULL,
  -- Known by the month only: an allowance is of a month.
  cost_overage numeric(20, 10) NOT NULL,
  cost_total numeric(20, 10) NOT NULL GENERATED ALWAYS AS (cost_cpu + cost_memory + cost_disk + cost_network_in + cost_network_out + cost_plan + cost_overage) STORED,
  days integer NOT NULL,
  -- From closing on the figures above are the corrected ones, billed_* is what they were at closing, and
  -- adjusted_cost the sum of the adjustments since: billed_cost + adjusted_cost = cost_total.
  closed_at timestamptz,
  billed_cost numeric(20, 10),
  billed_uptime_ms bigint,
  billed_out_bytes bigint,
  adjusted_cost numeric(20, 10) NOT NULL DEFAULT 0,
  invoice_id uuid,
  sealed_base jsonb,                      -- what it was when its days were archived, once something came after
  rolled_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT no_negative_time CHECK (least(measured_ms, late_ms, not_running_ms, missing_ms, uptime_ms) >= 0),
  PRIMARY KEY (year_month, pod_id)
);
CREATE INDEX cloud_pod_usage_monthly_of_tenant ON cloud_pod_usage_monthly (tenant_id, year_month);

-- A tenant's months that are closed.
CREATE TABLE usage_closed_months (
  tenant_id uuid NOT NULL REFERENCES tenants,
  year_month char(7) NOT NULL,
  currency char(3) NOT NULL,
  billed_cost numeric(20, 10) NOT NULL,
  closed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, year_month)
);

-- Each night's proof that samples, hours, days, months and bills agree.
CREATE TABLE usage_verifications (
  year_month char(7) NOT NULL,
  verified_at timestamptz NOT NULL,
  findings_count integer NOT NULL,
  disagreements_count integer NOT NULL,   -- of them those in which rows contradict each other, not only lack a price
  findings jsonb NOT NULL,                -- the first hundred
  PRIMARY KEY (year_month, verified_at)
);

CREATE FUNCTION billed_figures_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR ROW(NEW.closed_at, NEW.billed_cost, NEW.billed_uptime_ms, NEW.billed_out_bytes, NEW.currency)
     IS DISTINCT FROM ROW(OLD.closed_at, OLD.billed_cost, OLD.billed_uptime_ms, OLD.billed_out_bytes, OLD.currency) THEN
    RAISE EXCEPTION 'the month % of pod % is closed', OLD.year_month, OLD.pod_id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER billed_figures_stay BEFORE UPDATE OR DELETE ON cloud_pod_usage_monthly FOR EACH ROW
  WHEN (OLD.closed_at IS NOT NULL) EXECUTE FUNCTION billed_figures_stay();

-- Usage has no grant: tenants read it through views, under the names and in the units of the API.
CREATE VIEW tenant_usage_hourly WITH (security_barrier) AS
  SELECT pod_id, hour_start, sample_count, round(uptime_ms / 60000.0, 3) AS uptime_minutes,
    round(cpu_usage_us / 10.0 / nullif(cpu_capacity_ms, 0), 2) AS cpu_avg_percent, round(cpu_max_basis_points / 100.0, 2) AS cpu_max_percent,
    round(memory_byte_ms / nullif(running_ms, 0) / 1048576, 1) AS memory_avg_mb, round(memory_max_bytes / 1048576.0, 1) AS memory_max_mb,
    round(disk_byte_ms / nullif(running_ms, 0) / 1073741824, 3) AS disk_avg_gb,
    round(guest_in_bytes / 1048576.0, 6) AS network_in_total_mb, round(guest_out_bytes / 1048576.0, 6) AS network_out_total_mb,
    round(io_read_bytes / 1048576.0, 6) AS disk_read_total_mb, round(io_write_bytes / 1048576.0, 6) AS disk_write_total_mb,
    guest_in_bytes, guest_out_bytes, uptime_ms, measured_ms, late_ms, not_running_ms, missing_ms, core_ms, memory_mb_ms, disk_gb_ms,
    billable_in_bytes, billable_out_bytes, plan_out_bytes, currency, cost_cpu, cost_memory, cost_disk, cost_network_in,
    cost_network_out, cost_plan, cost_total, final_at, sealed_at
  FROM cloud_pod_usage_hourly WHERE tenant_id = (SELECT app_tenant_id());
CREATE VIEW tenant_usage_daily WITH (security_barrier) AS
  SELECT pod_id, date, sample_count, round(uptime_ms / 3600000.0, 4) AS uptime_hours,
    round(cpu_usage_us / 10.0 / nullif(cpu_capacity_ms, 0), 2) AS cpu_avg_percent, round(cpu_max_basis_points / 100.0, 2) AS cpu_max_percent,
    histogram_p95(cpu_histogram) AS cpu_p95_percent,
    round(memory_byte_ms / nullif(running_ms, 0) / 1048576, 1) AS memory_avg_mb, round(memory_max_bytes / 1048576.0, 1) AS memory_max_mb,
    round(disk_byte_ms / nullif(running_ms, 0) / 1073741824, 3) AS disk_avg_gb, round(disk_max_bytes / 1073741824.0, 3) AS disk_max_gb,
    round(guest_in_bytes / 1073741824.0, 9) AS network_in_total_gb, round(guest_out_bytes / 1073741824.0, 9) AS network_out_total_gb,
    round((io_read_bytes::numeric + io_write_bytes) / 1073741824.0, 9) AS disk_io_total_gb,
    round(measured_ms / 60000.0, 3) AS measured_minutes, round(late_ms / 60000.0, 3) AS late_minutes,
    round(not_running_ms / 60000.0, 3) AS not_running_minutes, round(missing_ms / 60000.0, 3) AS missing_minutes,
    guest_in_bytes, guest_out_bytes, uptime_ms, measured_ms, late_ms, not_running_ms, missing_ms, core_ms, memory_mb_ms, disk_gb_ms,
    billable_in_bytes, billable_out_bytes, plan_out_bytes, currency, cost_cpu, cost_memory, cost_disk, cost_network_in,
    cost_network_out, cost_plan, cost_total AS estimated_cost, hours
  FROM cloud_pod_usage_daily WHERE tenant_id = (SELECT app_tenant_id());
CREATE VIEW tenant_usage_monthly WITH (security_barrier) AS
  SELECT pod_id, year_month, round(core_ms / 3600000.0, 4) AS cpu_hours, round(memory_mb_ms / 1024.0 / 3600000, 4) AS memory_gb_hours,
    round(disk_gb_ms / 3600000.0, 4) AS disk_gb_hours, round(guest_in_bytes / 1073741824.0, 9) AS network_in_gb,
    round(guest_out_bytes / 1073741824.0, 9) AS network_out_gb, round(uptime_ms / 3600000.0, 4) AS total_uptime_hours,
    guest_in_bytes, guest_out_bytes, uptime_ms, measured_ms, late_ms, not_running_ms, missing_ms, core_ms, memory_mb_ms, disk_gb_ms,
    billable_in_bytes, billable_out_bytes, plan_out_bytes, overage_bytes, currency, cost_cpu, cost_memory, cost_disk, cost_network_in,
    cost_network_out, cost_plan, cost_overage, cost_total AS estimated_cost, billed_cost, adjusted_cost, closed_at, invoice_id
  FROM cloud_pod_usage_monthly WHERE tenant_id = (SELECT app_tenant_id());
CREATE VIEW tenant_closed_months WITH (security_barrier) AS
  SELECT year_month, currency, billed_cost, closed_at FROM usage_closed_months WHERE tenant_id = (SELECT app_tenant_id());
GRANT SELECT ON tenant_usage_hourly, tenant_usage_daily, tenant_usage_monthly, tenant_closed_months TO cloudpods_api;
