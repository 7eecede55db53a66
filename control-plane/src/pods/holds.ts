import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "./pod.ts";

/** Who holds a pod back; only the same authority lifts it. */
export type HoldKind = "customer" | "billing" | "budget" | "abuse" | "operator";

interface Hold {
  readonly kind: HoldKind;
  readonly effect: "suspend" | "stop" | "throttle";
  readonly reason: string | null;
}

/** Suspends with a reason; a second hold of the same kind changes nothing. */
export async function addSuspendHold(
  tx: Queryable,
  pod: Pod,
  kind: HoldKind,
  actor: string,
  reason: string | undefined,
): Promise<void> {
  await tx.execute(sql`
    INSERT INTO cloud_pod_holds (id, tenant_id, pod_id, kind, effect, actor, reason)
    VALUES (${newId()}, ${pod.tenantId}, ${pod.id}, ${kind}, 'suspend', ${actor}, ${reason ?? null})
    ON CONFLICT (pod_id, kind, effect) WHERE until IS NULL DO NOTHING`);
}

/**
 * Lifts the suspend hold of one kind and requires that none of another is left.
 * @throws DomainError `POD_ON_HOLD` naming the kind that still holds the pod
 */
export async function liftSuspendHold(tx: Queryable, pod: Pod, kind: HoldKind): Promise<void> {
  const holds = (await openHolds(tx, pod)).filter((hold) => hold.effect === "suspend" && hold.kind !== kind);
  refuse(holds[0]);
  await tx.execute(sql`
    UPDATE cloud_pod_holds SET until = now() WHERE pod_id = ${pod.id} AND kind = ${kind} AND effect = 'suspend' AND until IS NULL`);
}

/**
 * Requires that nothing forbids the pod to run.
 * @throws DomainError `POD_ON_HOLD`
 */
export async function requireStartable(tx: Queryable, pod: Pod): Promise<void> {
  refuse((await openHolds(tx, pod)).find((hold) => hold.effect !== "throttle"));
}

async function openHolds(tx: Queryable, pod: Pod): Promise<Hold[]> {
  return await tx.query<Hold>(
    sql`SELECT kind, effect, reason FROM cloud_pod_holds WHERE pod_id = ${pod.id} AND until IS NULL`,
  );
}

function refuse(hold: Hold | undefined): void {
  if (hold === undefined) return;
  throw new DomainError(
    "wrong-state",
    "POD_ON_HOLD",
    `The pod is on hold (${hold.kind}${hold.reason === null ? "" : `: ${hold.reason}`}).`,
    {
      details: { kind: hold.kind, effect: hold.effect, reason: hold.reason },
    },
  );
}
