import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import { requireBudgetLeft } from "../budgets/require-budget-left.ts";
import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import type { HoldEffect, HoldKind } from "./open-holds.ts";
import type { Pod } from "./pod.ts";

interface Hold {
  readonly kind: HoldKind;
  readonly effect: HoldEffect;
  readonly reason: string | null;
}

/** A reason to hold a pod back. */
export interface NewHold {
  readonly kind: HoldKind;
  readonly effect: HoldEffect;
  readonly actor: string;
  readonly reason: string | undefined;
  /** Of a throttle: what the pod's rate was, to give it back exactly. */
  readonly previousRateLimitKibPerSecond?: number;
}

/**
 * Holds a pod back; a second hold of the same kind and effect changes nothing.
 * @returns whether the hold is new
 */
export async function addHold(tx: Queryable, pod: Pod, hold: NewHold): Promise<boolean> {
  const added = await tx.execute(sql`
    INSERT INTO cloud_pod_holds (id, tenant_id, pod_id, kind, effect, actor, reason, previous_rate_limit_kib_per_second)
    VALUES (${newId()}, ${pod.tenantId}, ${pod.id}, ${hold.kind}, ${hold.effect}, ${hold.actor}, ${hold.reason ?? null},
      ${hold.previousRateLimitKibPerSecond ?? null})
    ON CONFLICT (pod_id, kind, effect) WHERE until IS NULL DO NOTHING`);
  return added === 1;
}

/** Lifts the hold of one kind and effect. @returns what it kept; undefined when there was none */
export async function liftHold(
  tx: Queryable,
  pod: Pod,
  kind: HoldKind,
  effect: HoldEffect,
): Promise<{ readonly previousRateLimitKibPerSecond: number | null } | undefined> {
  const [lifted] = await tx.query<{ previousRateLimitKibPerSecond: number | null }>(sql`
    UPDATE cloud_pod_holds SET until = now() WHERE pod_id = ${pod.id} AND kind = ${kind} AND effect = ${effect} AND until IS NULL
    RETURNING previous_rate_limit_kib_per_second AS "previousRateLimitKibPerSecond"`);
  return lifted;
}

/**
 * Lifts the suspend hold of one kind and requires that none of another is left.
 * @throws DomainError `POD_ON_HOLD` naming the kind that still holds the pod
 */
export async function liftSuspendHold(tx: Queryable, pod: Pod, kind: HoldKind): Promise<void> {
  const holds = (await openHolds(tx, pod)).filter((hold) => hold.effect === "suspend" && hold.kind !== kind);
  refuse(holds[0]);
  await liftHold(tx, pod, kind, "suspend");
}

/**
 * Requires that nothing forbids the pod to run.
 * @throws DomainError `POD_ON_HOLD`, `BUDGET_EXHAUSTED`
 */
export async function requireStartable(tx: Queryable, pod: Pod): Promise<void> {
  refuse((await openHolds(tx, pod)).find(keepsStopped));
  await requireBudgetLeft(tx, pod.tenantId);
}

/** Whether no hold forbids the pod to run. */
export async function isFreeToRun(tx: Queryable, pod: Pod): Promise<boolean> {
  return !(await openHolds(tx, pod)).some(keepsStopped);
}

/** Whether a hold forbids pod `p` to run; what is wanted of its power stays as it was meanwhile. */
export const isKeptStopped: Sql = sql`EXISTS (SELECT FROM cloud_pod_holds h WHERE h.pod_id = p.id AND h.until IS NULL AND h.effect <> 'throttle')`;

function keepsStopped(hold: Hold): boolean {
  return hold.effect !== "throttle";
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
