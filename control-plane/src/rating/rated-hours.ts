import { sql, type Sql } from "../platform/sql.ts";
import { listInForce } from "./pricing.ts";

/**
 * Common table expressions that cut hours into pieces of constant rates. They read
 * `due (pod_id, tenant_id, hour_start, hour_end, supplement)`, where `hour_end` may be an instant inside the
 * hour, and give
 * - `pieces`: stretches [from_ms, to_ms) of an hour with one allocation, one price list and one plan price, or none;
 * - `edges`: hours that are not one whole piece, for which traffic must be known sample by sample;
 * - `lost`: when the pod's host could not be reached for more than an hour.
 *
 * Time-proportional amounts are differences of c(t) = price × quantity × elapsed(t) / month, rounded to ten
 * places, where elapsed counts from the piece's anchor: so the hours of a month sum to the month exactly.
 */
export const pieceTables: Sql = sql`
  hours AS (
    SELECT hour_start, hour_end, month_start, ms_in_hour(hour_end, hour_start) AS length_ms, ms_between(month_start, hour_start) AS month_elapsed_ms,
      ms_between(month_start, ((month_start AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC') AS month_ms
    FROM (SELECT DISTINCT hour_start, hour_end, date_trunc('month', hour_start, 'UTC') AS month_start FROM due) AS distinct_hours),
  slices AS (
    SELECT hour_start, at AS from_at, lead(at, 1, hour_end) OVER (PARTITION BY hour_start, hour_end ORDER BY at) AS to_at
    FROM hours CROSS JOIN LATERAL (
      SELECT hour_start AS at
      UNION SELECT effective_from FROM cloud_pod_pricing WHERE effective_from > hour_start AND effective_from < hour_end
      UNION SELECT effective_until FROM cloud_pod_pricing WHERE effective_until > hour_start AND effective_until < hour_end) AS cuts),
  price_lists AS MATERIALIZED (
    -- A change of prices that are not the tenant's cuts nothing: what costs the same is rounded once.
    SELECT tenant_id, hour_start, min(from_at) AS from_at, max(to_at) AS to_at, list_from, cpu_per_hour, memory_gb_per_hour, disk_gb_per_month,
      network_out_gb, network_in_gb
    FROM (SELECT *, sum(is_other) OVER (PARTITION BY tenant_id, hour_start ORDER BY from_at) AS stretch FROM (
      SELECT t.tenant_id, s.hour_start, greatest(s.from_at, lower(n.valid)) AS from_at, least(s.to_at, upper(n.valid)) AS to_at,
        greatest(list.effective_from, lower(n.valid)) AS list_from, list.*,
        (lag(list.id) OVER in_order IS DISTINCT FROM list.id OR lag(n.valid) OVER in_order IS DISTINCT FROM n.valid)::integer AS is_other
      FROM (SELECT DISTINCT tenant_id FROM due) AS t
      JOIN tenants ON tenants.id = t.tenant_id
      CROSS JOIN slices s
      JOIN tenant_pricing_names n ON n.tenant_id = t.tenant_id AND n.valid && tstzrange(s.from_at, s.to_at)
      -- Where none is in force there is a stretch without a price.
      LEFT JOIN LATERAL (
        SELECT p.id, p.effective_from, p.cpu_per_hour, p.memory_gb_per_hour, p.disk_gb_per_month, p.network_out_gb,
          CASE WHEN p.network_in_free THEN 0 ELSE p.network_in_gb END AS network_in_gb
        ${listInForce(sql`tenants.currency`, sql`n.pricing_name`, sql`s.from_at`)}) AS list ON true
      WINDOW in_order AS (PARTITION BY t.tenant_id, s.hour_start ORDER BY greatest(s.from_at, lower(n.valid)))) AS single) AS counted
    GROUP BY tenant_id, hour_start, stretch, list_from, cpu_per_hour, memory_gb_per_hour, disk_gb_per_month, network_out_gb, network_in_gb),
  plan_prices AS MATERIALIZED (
    SELECT k.plan_code, k.currency, s.hour_start, s.hour_end, s.from_at, s.to_at, lower(pp.valid) AS price_from, pp.amount
    FROM (SELECT code AS plan_code, currency FROM cloud_pod_plans
      CROSS JOIN (SELECT DISTINCT currency FROM tenants WHERE id IN (SELECT tenant_id FROM due)) AS own) AS k
    CROSS JOIN LATERAL (
      SELECT hour_start, hour_end, at AS from_at, lead(at, 1, hour_end) OVER (PARTITION BY hour_start, hour_end ORDER BY at) AS to_at
      FROM hours CROSS JOIN LATERAL (
        SELECT hour_start AS at
        UNION SELECT at FROM cloud_pod_plan_prices own CROSS JOIN LATERAL (VALUES (lower(own.valid)), (upper(own.valid))) AS ends (at)
        WHERE own.plan_code = k.plan_code AND own.currency = k.currency AND at > hour_start AND at < hour_end) AS cuts) AS s
    LEFT JOIN cloud_pod_plan_prices pp ON pp.plan_code = k.plan_code AND pp.currency = k.currency AND pp.valid @> s.from_at),
  pieces AS MATERIALIZED (
    -- Nearly every piece is a whole hour of a price and a pod older than the month: worth asking first.
    SELECT piece.*, CASE WHEN from_at = hour_start THEN 0 ELSE ms_in_hour(from_at, hour_start) END AS from_ms,
      CASE WHEN to_at = hour_end THEN length_ms ELSE ms_in_hour(to_at, hour_start) END AS to_ms,
      CASE WHEN anchor = month_start THEN month_elapsed_ms ELSE ms_between(anchor, hour_start) END AS elapsed_ms
    FROM (
      SELECT d.pod_id, d.hour_start, d.hour_end, d.supplement, h.month_ms, h.month_start, h.length_ms, h.month_elapsed_ms, a.billing_mode, a.cores, a.memory_mb, a.disk_gb,
        greatest(d.hour_start, lower(a.valid), l.from_at, pp.from_at) AS from_at,
        least(d.hour_end, upper(a.valid), l.to_at, pp.to_at) AS to_at,
        CASE WHEN plan.overage_policy = 'charge' THEN plan.bandwidth_gb END AS allowance_gb,
        coalesce(l.cpu_per_hour, 0) AS cpu_per_hour, coalesce(l.memory_gb_per_hour, 0) AS memory_gb_per_hour,
        coalesce(l.network_in_gb, 0) AS network_in_gb, coalesce(l.network_out_gb, 0) AS network_out_gb,
        -- What accrues by existence: the disk, or the whole plan.
        CASE WHEN a.billing_mode = 'plan' THEN pp.amount ELSE l.disk_gb_per_month END AS monthly_price,
        CASE WHEN a.billing_mode = 'plan' THEN 1 ELSE a.disk_gb END AS monthly_quantity,
        greatest(h.month_start, lower(a.valid), l.list_from, pp.price_from) AS anchor
      FROM due d
      JOIN hours h ON h.hour_start = d.hour_start AND h.hour_end = d.hour_end
      JOIN tenants t ON t.id = d.tenant_id
      JOIN cloud_pod_allocations a ON a.pod_id = d.pod_id AND a.valid && tstzrange(d.hour_start, d.hour_end)
      LEFT JOIN price_lists l ON a.billing_mode = 'metered' AND l.tenant_id = d.tenant_id AND l.hour_start = d.hour_start
        AND a.valid && tstzrange(l.from_at, l.to_at)
      LEFT JOIN cloud_pod_plans plan ON a.billing_mode = 'plan' AND plan.code = a.plan_code
      LEFT JOIN plan_prices pp ON a.billing_mode = 'plan' AND pp.plan_code = a.plan_code AND pp.currency = t.currency
        AND pp.hour_start = d.hour_start AND pp.hour_end = d.hour_end AND a.valid && tstzrange(pp.from_at, pp.to_at)) AS piece
    WHERE from_at < to_at),
  edges AS (
    SELECT pod_id, hour_start FROM pieces GROUP BY pod_id, hour_start
    HAVING count(*) > 1 OR min(from_at) > hour_start OR max(to_at) < max(hour_end)),
  lost AS MATERIALIZED (
    SELECT d.pod_id, d.hour_start, range_agg(int4range(
      ms_in_hour(greatest(lower(o.period) + interval '1 hour', pl.placed_from), d.hour_start),
      ms_in_hour(least(coalesce(upper(o.period), d.hour_end), coalesce(pl.placed_to, d.hour_end)), d.hour_start))) AS away
    FROM hours h
    JOIN node_outages o ON o.period && tstzrange(h.hour_start - interval '1 hour', h.hour_end)
    JOIN cloud_pod_placements pl ON pl.node_id = o.node_id AND pl.placed_from < h.hour_end AND coalesce(pl.placed_to, 'infinity') > h.hour_start
    JOIN due d ON d.pod_id = pl.pod_id AND d.hour_start = h.hour_start AND d.hour_end = h.hour_end
    WHERE greatest(lower(o.period) + interval '1 hour', pl.placed_from, h.hour_start)
      < least(coalesce(upper(o.period), 'infinity'), coalesce(pl.placed_to, 'infinity'), h.hour_end)
    GROUP BY d.pod_id, d.hour_start)`;

/** The amounts that a pod-hour costs by itself, in the order of the columns. An overage is of the month. */
export const hourCosts = [
  "cost_cpu",
  "cost_memory",
  "cost_disk",
  "cost_network_in",
  "cost_network_out",
  "cost_plan",
] as const;

/**
 * The common table expression `rated` (one row per pod-hour that has pieces) of `pieces`, `lost` and
 * `evidence (pod_id, hour_start, covered, guest_in_bytes, guest_out_bytes, traffic_points)`.
 *
 * Traffic belongs to the piece of a sample's last millisecond; without points, to the last piece.
 */
export const ratedTable: Sql = sql`
  used AS (
    SELECT p.*, lost.away,
      CASE WHEN p.from_at = p.hour_start AND p.to_at = p.hour_end THEN length_ms(e.covered)
        ELSE length_ms(e.covered * int4multirange(int4range(p.from_ms, p.to_ms))) END AS uptime_ms,
      CASE WHEN e.traffic_points IS NOT NULL THEN (
          SELECT coalesce(sum((point ->> 1)::bigint), 0)::bigint FROM jsonb_array_elements(e.traffic_points) AS point
          WHERE (point ->> 0)::integer > p.from_ms AND (point ->> 0)::integer <= p.to_ms)
        WHEN p.is_last THEN e.guest_in_bytes ELSE 0 END AS in_bytes,
      CASE WHEN e.traffic_points IS NOT NULL THEN (
          SELECT coalesce(sum((point ->> 2)::bigint), 0)::bigint FROM jsonb_array_elements(e.traffic_points) AS point
          WHERE (point ->> 0)::integer > p.from_ms AND (point ->> 0)::integer <= p.to_ms)
        WHEN p.is_last THEN e.guest_out_bytes ELSE 0 END AS out_bytes
    FROM (SELECT pieces.*, lead(from_ms) OVER (PARTITION BY pod_id, hour_start ORDER BY from_ms) IS NULL AS is_last FROM pieces) AS p
    JOIN evidence e USING (pod_id, hour_start)
    LEFT JOIN lost USING (pod_id, hour_start)
    -- Computed once for each piece, and not wherever it is named below.
    OFFSET 0),
  accrued AS (
    SELECT used.*,
      CASE WHEN supplement THEN 0
        WHEN away IS NULL THEN to_ms - from_ms
        ELSE length_ms(int4multirange(int4range(from_ms, to_ms)) - away) END AS existence_ms,
      CASE WHEN supplement OR monthly_price IS NULL THEN 0
        WHEN away IS NULL THEN proportion(monthly_price, monthly_quantity * (elapsed_ms + to_ms), month_ms)
          - proportion(monthly_price, monthly_quantity * (elapsed_ms + from_ms), month_ms)
        ELSE (
          SELECT coalesce(sum(proportion(monthly_price, monthly_quantity * (elapsed_ms + upper(stay)), month_ms)
            - proportion(monthly_price, monthly_quantity * (elapsed_ms + lower(stay)), month_ms)), 0)
          FROM unnest(int4multirange(int4range(from_ms, to_ms)) - away) AS stay)
        END AS monthly_cost
    FROM used),
  rated AS (
    SELECT pod_id, hour_start,
      sum(uptime_ms::bigint * cores)::bigint AS core_ms,
      sum(uptime_ms::bigint * memory_mb)::bigint AS memory_mb_ms,
      sum(existence_ms::bigint * disk_gb)::bigint AS disk_gb_ms,
      sum(in_bytes)::bigint AS billable_in_bytes,
      sum(out_bytes)::bigint AS billable_out_bytes,
      coalesce(sum(out_bytes) FILTER (WHERE billing_mode = 'plan'), 0)::bigint AS plan_out_bytes,
      coalesce(sum(existence_ms) FILTER (WHERE monthly_price IS NULL), 0)::bigint AS unpriced_ms,
      max(allowance_gb) FILTER (WHERE is_last) AS allowance_gb,
      sum(CASE WHEN billing_mode = 'metered' THEN proportion(cpu_per_hour, cores::bigint * uptime_ms, 3600000) ELSE 0 END) AS cost_cpu,
      sum(CASE WHEN billing_mode = 'metered' THEN proportion(memory_gb_per_hour, memory_mb::bigint * uptime_ms, 3686400000) ELSE 0 END) AS cost_memory,
      coalesce(sum(monthly_cost) FILTER (WHERE billing_mode = 'metered'), 0) AS cost_disk,
      sum(CASE WHEN network_in_gb > 0 THEN proportion(network_in_gb, in_bytes, 1073741824) ELSE 0 END) AS cost_network_in,
      sum(CASE WHEN network_out_gb > 0 THEN proportion(network_out_gb, out_bytes, 1073741824) ELSE 0 END) AS cost_network_out,
      coalesce(sum(monthly_cost) FILTER (WHERE billing_mode = 'plan'), 0) AS cost_plan
    FROM accrued GROUP BY pod_id, hour_start)`;
