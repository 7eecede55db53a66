import { endRestore } from "./nodes/declare-restored.ts";
import type { Database } from "./platform/database.ts";
import type { Loop } from "./platform/loops.ts";
import { sql } from "./platform/sql.ts";
import { reconcilePower } from "./pods/reconcile-power.ts";
import { recountQuotas } from "./quotas/recount-quotas.ts";
import { recountClaims } from "./scheduling/recount-claims.ts";
import { pruneIdentity } from "./security/prune-identity.ts";
import { sealAudit } from "./security/seal-audit.ts";

const minuteMs = 60_000;

/** What keeps the tables in order while nobody looks. */
export function maintenanceLoops(db: Database): Loop[] {
  return [
    { name: "recount-quotas", everyMs: 10 * minuteMs, run: async () => corrections(await recountQuotas(db)) },
    { name: "recount-claims", everyMs: 10 * minuteMs, run: async () => corrections(await recountClaims(db)) },
    {
      name: "prune-identity",
      everyMs: 10 * minuteMs,
      async run() {
        await pruneIdentity(db, new Date());
        return undefined;
      },
    },
    {
      name: "reconcile-power",
      everyMs: minuteMs / 2,
      run: async () => podsTakenUp(await reconcilePower(db)),
    },
    {
      name: "end-restore",
      everyMs: minuteMs / 6,
      run: async () => ((await endRestore(db)) ? { ordersReleased: true } : undefined),
    },
    {
      name: "seal-audit",
      everyMs: 1_000,
      async run() {
        await sealAudit(db);
        return undefined;
      },
    },
    { name: "prune-fleet", everyMs: minuteMs, run: () => pruneFleet(db) },
  ];
}

function podsTakenUp(pods: number): Readonly<Record<string, unknown>> | undefined {
  return pods === 0 ? undefined : { pods };
}

function corrections(differences: readonly unknown[]): Readonly<Record<string, unknown>> | undefined {
  return differences.length === 0
    ? undefined
    : { corrected: differences.length, differences: differences.slice(0, 20) };
}

/**
 * Host metrics are kept two weeks, answered questions a minute, used challenges an hour; what was put aside
 * of telemetry 400 days, so that it can be driven again.
 */
async function pruneFleet(db: Database): Promise<undefined> {
  await db.execute(sql`DELETE FROM node_samples WHERE at < now() - interval '14 days'`);
  await db.execute(sql`DELETE FROM node_queries WHERE asked_at < now() - interval '1 minute'`);
  await db.execute(sql`DELETE FROM renewal_challenges WHERE expires_at < now() - interval '1 hour'`);
  await db.execute(sql`DELETE FROM telemetry_dead_letters WHERE received_at < now() - interval '400 days'`);
  await db.execute(sql`DELETE FROM usage_rejected_samples WHERE received_at < now() - interval '400 days'`);
  return undefined;
}
