import { sql, type Sql } from "../platform/sql.ts";

/** Who holds a pod back; only the same authority lifts it. */
export const holdKinds = ["customer", "billing", "budget", "abuse", "operator", "bandwidth"] as const;
export type HoldKind = (typeof holdKinds)[number];

/** What a hold does to a pod. */
export const holdEffects = ["suspend", "stop", "throttle"] as const;
export type HoldEffect = (typeof holdEffects)[number];

/** A hold that nobody has lifted, with its reason as its customer may read it. */
export interface OpenHold {
  readonly kind: HoldKind;
  readonly effect: HoldEffect;
  readonly reason: string | null;
  /** RFC 3339. */
  readonly since: string;
}

/** The holds of pod `p` that nobody has lifted, as JSON. */
export const openHoldsOf: Sql = sql`(
  SELECT coalesce(json_agg(json_build_object('kind', h.kind, 'effect', h.effect, 'reason', h.reason, 'since', h.since) ORDER BY h.since, h.id), '[]')
  FROM cloud_pod_holds h WHERE h.pod_id = p.id AND h.until IS NULL)`;
