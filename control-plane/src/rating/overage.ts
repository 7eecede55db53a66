import { sql, type Sql } from "../platform/sql.ts";
import { listInForce } from "./pricing.ts";

/**
 * Common table expressions that give `overages (pod_id, overage_bytes, cost_overage)` of
 * `counted_hours (pod_id, tenant_id, hour_start, plan_out_bytes, allowance_gb)`: all hours of a month of some
 * pods. Outgoing traffic under a plan that charges for more first uses up the plan's gigabytes (2^30 bytes) of the
 * month; hours under plans that do not charge use up nothing. Each hour beyond pays for its bytes by the tenant's
 * price list of that hour's beginning. The sum of the bytes of one price is rounded once.
 */
export const overageTables: Sql = sql`
  used_up AS (
    SELECT pod_id, tenant_id, hour_start, plan_out_bytes, allowance_gb::numeric * 1073741824 AS allowance,
      sum(plan_out_bytes) OVER (PARTITION BY pod_id ORDER BY hour_start) AS up_to
    FROM counted_hours WHERE allowance_gb IS NOT NULL),
  beyond AS (
    SELECT pod_id, tenant_id, hour_start, greatest(0, up_to - allowance) - greatest(0, up_to - plan_out_bytes - allowance) AS bytes
    FROM used_up WHERE up_to > allowance AND plan_out_bytes > 0),
  beyond_by_price AS (
    SELECT b.pod_id, coalesce(list.network_out_gb, 0) AS price, sum(b.bytes) AS bytes
    FROM beyond b
    JOIN tenants t ON t.id = b.tenant_id
    JOIN tenant_pricing_names n ON n.tenant_id = b.tenant_id AND n.valid @> b.hour_start
    LEFT JOIN LATERAL (
      SELECT p.network_out_gb ${listInForce(sql`t.currency`, sql`n.pricing_name`, sql`b.hour_start`)}) AS list ON true
    GROUP BY b.pod_id, list.network_out_gb),
  overages AS (
    SELECT pod_id, sum(bytes)::bigint AS overage_bytes, sum(proportion(price, bytes, 1073741824)) AS cost_overage
    FROM beyond_by_price GROUP BY pod_id)`;
