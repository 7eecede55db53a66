import { z } from "@hono/zod-openapi";
import { timestamp } from "../http/fields.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { checkVersion, etagOf } from "../http/version-check.ts";
import { sql } from "../platform/sql.ts";
import type { Queryable } from "../platform/database.ts";
import { findPod, lockPod, type Pod } from "../pods/pod.ts";
import { recordAudit } from "../security/audit.ts";
import { backupWish, chosenRules, readPolicy, rulesOfPlan, writePolicy } from "./backup-policy.ts";
import { requireBackable } from "./request-backup.ts";

const policyView = z
  .object({
    enabled: z.boolean(),
    everyHours: z.number().int(),
    keepLast: z.number().int().openapi({ description: "The newest ones." }),
    keepDaily: z.number().int().openapi({ description: "The newest of each of so many days (UTC)." }),
    keepWeekly: z.number().int().openapi({ description: "The newest of each of so many weeks (UTC, from Monday)." }),
    source: z.enum(["plan", "tenant"]).openapi({ description: "`plan`: the rules change with the plan." }),
    nextAt: timestamp.nullable().openapi({ description: "Null: the schedule is off, or the pod is not made yet." }),
    lastSuccessAt: timestamp.nullable().openapi({ description: "Of any backup that is there and can be read." }),
    version: z.number().int(),
  })
  .openapi("BackupPolicy");

/** How often a pod is backed up and how many backups stay. */
export function registerBackupPolicyRoutes(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/:pod/backup-policy",
    summary: "When a pod is backed up and which backups stay",
    tags: ["backups"],
    access: { scope: "READ" },
    responses: { 200: policyView },
    async handler({ params }, ctx) {
      const policy = await ctx.inTenant(async (tx) => await show(tx, await findPod(tx, ctx.tenantId, params.pod)));
      return { status: 200, headers: { etag: etagOf(policy.version) }, body: policy };
    },
  });
  route(routes, {
    method: "put",
    path: "/api/cloud-pods/:pod/backup-policy",
    summary:
      "Change the rules for a pod's backups, within what its plan comes with; what is left out is as in the plan",
    tags: ["backups"],
    // Fewer to keep is archives deleted, which asks for this scope too.
    access: { scope: "PROVISIONING" },
    checksVersion: true,
    request: { body: backupWish, example: { keepLast: 1 } },
    responses: { 200: policyView },
    async handler({ params, body, ifMatch }, ctx) {
      const policy = await ctx.inTenant(async (tx) => {
        const pod = await lockPod(tx, ctx.tenantId, params.pod);
        requireBackable(pod);
        checkVersion(ifMatch, (await readPolicy(tx, pod, true)).version);
        const rules = chosenRules(await rulesOfPlan(tx, pod.planCode), body, "");
        await writePolicy(tx, pod, rules, Object.keys(body).length === 0 ? "plan" : "tenant", ctx.now);
        await recordAudit(tx, {
          actor: ctx.actor,
          requestId: ctx.requestId,
          tenantId: ctx.tenantId,
          action: "pod.backup-policy",
          targetType: "pod",
          targetId: pod.id,
          detail: { ...rules },
        });
        return await show(tx, pod);
      });
      return { status: 200, headers: { etag: etagOf(policy.version) }, body: policy };
    },
  });
}

async function show(tx: Queryable, pod: Pod) {
  const [policy, [last]] = await Promise.all([
    readPolicy(tx, pod),
    tx.query<{ at: Date | null }>(sql`
      SELECT max(finished_at) AS at FROM cloud_pod_backups WHERE pod_id = ${pod.id} AND state = 'available' AND damaged_at IS NULL`),
  ]);
  return { ...policy, lastSuccessAt: last?.at ?? null };
}
