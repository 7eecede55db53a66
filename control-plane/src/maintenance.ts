import { endCordons } from "./nodes/end-cordons.ts";
import { endRestore } from "./nodes/declare-restored.ts";
import type { Database } from "./platform/database.ts";
import type { Loop } from "./platform/loops.ts";
import { reconcilePower } from "./pods/reconcile-power.ts";
import { pruneHistory } from "./prune-history.ts";
import { recountQuotas } from "./quotas/recount-quotas.ts";
import { recountClaims } from "./scheduling/recount-claims.ts";
import { proveAudit } from "./security/prove-audit.ts";
import { pruneIdentity } from "./security/prune-identity.ts";
import { sealAuditLoop } from "./security/seal-audit-loop.ts";

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
      name: "end-cordons",
      everyMs: 5_000,
      async run() {
        const opened = await endCordons(db);
        return opened.length === 0 ? undefined : { opened };
      },
    },
    sealAuditLoop(db),
    {
      name: "prove-audit",
      everyMs: minuteMs,
      async run() {
        const fault = await proveAudit(db);
        if (fault !== undefined)
          throw new Error(`the audit log is not what was sealed: ${fault.code} at row ${fault.seq}`);
        return undefined;
      },
    },
    {
      name: "prune-history",
      everyMs: minuteMs,
      async run() {
        await pruneHistory(db);
        return undefined;
      },
    },
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
