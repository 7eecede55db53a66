-- What usage costs. Amounts of usage have ten decimal places; they are rounded to a currency's own places
-- once, on an invoice line.

-- amount * part / whole to ten places, half up, exactly: numeric division would round twice.
CREATE FUNCTION proportion(amount numeric, part numeric, whole numeric) RETURNS numeric
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  RETURN div(20000000000 * amount * part + whole, 2 * whole) * 0.0000000001;

-- Versions of price lists. A tenant pays by the list that it names, else by the default of its currency, as
-- in force at the time of the usage.
CREATE TABLE cloud_pod_pricing (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  name text NOT NULL CONSTRAINT pricing_name CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  currency char(3) NOT NULL CONSTRAINT pricing_currency CHECK (currency ~ '^[A-Z]{3}$'),
  cpu_per_hour numeric(20, 10) NOT NULL CHECK (cpu_per_hour >= 0),              -- core and hour of uptime
  memory_gb_per_hour numeric(20, 10) NOT NULL CHECK (memory_gb_per_hour >= 0),  -- 1024 MB and hour of uptime
  disk_gb_per_month numeric(20, 10) NOT NULL CHECK (disk_gb_per_month >= 0),    -- GB and month of existence
  network_out_gb numeric(20, 10) NOT NULL CHECK (network_out_gb >= 0),          -- 2^30 bytes
  network_in_gb numeric(20, 10) NOT NULL DEFAULT 0 CHECK (network_in_gb >= 0),
  network_in_free boolean NOT NULL DEFAULT true,
  is_default boolean NOT NULL DEFAULT false,
  effective_from timestamptz NOT NULL,
  effective_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pricing_has_a_time CHECK (effective_until > effective_from),
  CONSTRAINT one_pricing_at_a_time EXCLUDE USING gist (name WITH =, currency WITH =, tstzrange(effective_from, effective_until) WITH &&),
  CONSTRAINT one_default_pricing_at_a_time EXCLUDE USING gist (currency WITH =, tstzrange(effective_from, effective_until) WITH &&) WHERE (is_default)
);

-- Before anything was ever sold, so that every usage finds a price.
INSERT INTO cloud_pod_pricing (name, currency, cpu_per_hour, memory_gb_per_hour, disk_gb_per_month, network_out_gb, is_default, effective_from)
VALUES ('standard', 'USD', 0.01, 0.005, 0.10, 0.05, true, '2025-01-01Z');

-- What hours were rated with stays: a version may only be ended, after the last hour that used it.
CREATE FUNCTION used_prices_stay() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
  after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
  changed tstzrange;
  ends text := CASE TG_TABLE_NAME WHEN 'cloud_pod_pricing' THEN 'effective_until' ELSE 'valid' END;
BEGIN
  IF TG_TABLE_NAME = 'cloud_pod_pricing' THEN
    changed := tstzrange(least((before ->> 'effective_from')::timestamptz, (after ->> 'effective_from')::timestamptz), NULL);
    IF TG_OP = 'UPDATE' AND before - ends = after - ends THEN
      changed := tstzrange(least((before ->> ends)::timestamptz, (after ->> ends)::timestamptz), NULL);
    END IF;
  ELSE
    changed := tstzrange(least(lower((before ->> ends)::tstzrange), lower((after ->> ends)::tstzrange)), NULL);
    IF TG_OP = 'UPDATE' AND before - ends = after - ends AND lower((before ->> ends)::tstzrange) = lower((after ->> ends)::tstzrange) THEN
      changed := tstzrange(least(upper((before ->> ends)::tstzrange), upper((after ->> ends)::tstzrange)), NULL);
    END IF;
  END IF;
  IF EXISTS (SELECT FROM usage_hours WHERE hour_start + interval '1 hour' > lower(changed)) THEN
    RAISE EXCEPTION 'usage after % was rated already', lower(changed) USING ERRCODE = 'CP002';
  END IF;
  RETURN coalesce(NEW, OLD);
END $$;
CREATE TRIGGER used_pricing_stays BEFORE INSERT OR UPDATE OR DELETE ON cloud_pod_pricing FOR EACH ROW EXECUTE FUNCTION used_prices_stay();
CREATE TRIGGER used_plan_prices_stay BEFORE INSERT OR UPDATE OR DELETE ON cloud_pod_plan_prices FOR EACH ROW EXECUTE FUNCTION used_prices_stay();

-- A price that begins in an hour which is being rated at this moment: the hour is rated again.
CREATE FUNCTION mark_priced_hours() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO usage_dirty_hours (hour_start, node_id)
  SELECT hour, id FROM hours_to_mark(tstzrange(now() - interval '1 hour', NULL)) AS hour, nodes;
  RETURN NULL;
END $$;
CREATE TRIGGER priced_hours_are_marked AFTER INSERT OR UPDATE ON cloud_pod_pricing FOR EACH STATEMENT EXECUTE FUNCTION mark_priced_hours();
CREATE TRIGGER plan_priced_hours_are_marked AFTER INSERT OR UPDATE ON cloud_pod_plan_prices FOR EACH STATEMENT EXECUTE FUNCTION mark_priced_hours();

-- Which list a tenant named when.
CREATE TABLE tenant_pricing_names (
  tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
  pricing_name text,
  valid tstzrange NOT NULL,
  CONSTRAINT one_pricing_name_at_a_time EXCLUDE USING gist (tenant_id WITH =, valid WITH &&)
);
INSERT INTO tenant_pricing_names (tenant_id, pricing_name, valid) SELECT id, pricing_name, tstzrange('-infinity', NULL) FROM tenants;

CREATE FUNCTION record_pricing_name() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO tenant_pricing_names (tenant_id, pricing_name, valid) VALUES (NEW.id, NEW.pricing_name, tstzrange('-infinity', NULL));
    RETURN NULL;
  END IF;
  IF NEW.currency <> OLD.currency AND EXISTS (SELECT FROM cloud_pod_usage_hourly WHERE tenant_id = NEW.id) THEN
    RAISE EXCEPTION 'usage of tenant % was rated in %', NEW.id, OLD.currency USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.pricing_name IS DISTINCT FROM OLD.pricing_name THEN
    DELETE FROM tenant_pricing_names WHERE tenant_id = NEW.id AND upper_inf(valid) AND lower(valid) >= now();
    UPDATE tenant_pricing_names SET valid = tstzrange(lower(valid), now()) WHERE tenant_id = NEW.id AND upper_inf(valid);
    INSERT INTO tenant_pricing_names (tenant_id, pricing_name, valid) VALUES (NEW.id, NEW.pricing_name, tstzrange(now(), NULL));
    -- A change that commits after its hour was rated is rated again.
    INSERT INTO usage_dirty_hours (hour_start, pod_id)
    SELECT hour, p.id FROM cloud_pods p, hours_to_mark(tstzrange(now(), NULL)) AS hour
    WHERE p.tenant_id = NEW.id AND p.status <> 'deleted';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER pricing_names_are_recorded AFTER INSERT OR UPDATE OF pricing_name, currency ON tenants FOR EACH ROW EXECUTE FUNCTION record_pricing_name();

GRANT SELECT ON cloud_pod_pricing TO cloudpods_api;
