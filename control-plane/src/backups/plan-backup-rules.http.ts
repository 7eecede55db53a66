import { z } from "@hono/zod-openapi";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { checkVersion, etagOf } from "../http/version-check.ts";
import type { Queryable } from "../platform/database.ts";
import { meantPlanCode, resolvePlan } from "../plans/resolve-plan.ts";
import { recordAudit } from "../security/audit.ts";
import { backupWish, withWish } from "./backup-policy.ts";
import { lockPlan, readPlanRules, writePlanRules } from "./plan-backup-rules.ts";

const rulesView = z
  .object({
    planCode: z.string(),
    enabled: z.boolean(),
    everyHours: z.number().int(),
    keepLast: z.number().int().openapi({ description: "The newest ones." }),
    keepDaily: z.number().int().openapi({ description: "The newest of each of so many days (UTC)." }),
    keepWeekly: z.number().int().openapi({ description: "The newest of each of so many weeks (UTC, from Monday)." }),
    version: z.number().int(),
  })
  .openapi("PlanBackupPolicy");

const change = backupWish.refine((rules) => Object.keys(rules).length > 0, "nothing to change");

const path = "/api/cloud-pods/plans/:code/backup-policy";

/** The backups that come with a plan. */
export function registerPlanBackupRoutes(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path,
    summary: "The backups that come with a plan",
    tags: ["plans"],
    access: "public",
    responses: { 200: rulesView },
    async handler({ params }, { system }) {
      const { code } = await resolvePlan(system, params.code);
      const rules = await show(system, code);
      return { status: 200, headers: { etag: etagOf(rules.version) }, body: rules };
    },
  });
  route(routes, {
    method: "put",
    path,
    summary: "Change the backups that come with a plan; its pods follow within minutes. What is left out stays",
    tags: ["plans"],
    access: { platform: "ADMINISTRATOR" },
    checksVersion: true,
    request: { body: change, example: { everyHours: 24, keepDaily: 7 } },
    responses: { 200: rulesView },
    async handler({ params, body, ifMatch }, ctx) {
      const rules = await ctx.inSystem(async (tx) => {
        const code = await meantPlanCode(tx, params.code);
        await lockPlan(tx, code);
        const before = await readPlanRules(tx, code);
        checkVersion(ifMatch, before.version);
        await writePlanRules(tx, code, withWish(before, body));
        await recordAudit(tx, {
          actor: ctx.actor,
          requestId: ctx.requestId,
          tenantId: undefined,
          action: "plan.backup-policy",
          targetType: "plan",
          targetId: code,
          detail: body,
        });
        return await show(tx, code);
      });
      return { status: 200, headers: { etag: etagOf(rules.version) }, body: rules };
    },
  });
}

async function show(db: Queryable, planCode: string): Promise<z.input<typeof rulesView>> {
  return { planCode, ...(await readPlanRules(db, planCode)) };
}
