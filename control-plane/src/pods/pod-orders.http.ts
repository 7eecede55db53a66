import { z } from "@hono/zod-openapi";
import { backupWish } from "../backups/backup-policy.ts";
import { chooseBackupPlace } from "../backups/backup-storage.ts";
import type { TenantContext } from "../http/context.ts";
import { dryRun, queryFlag } from "../http/fields.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { checkVersion } from "../http/version-check.ts";
import type { Hints } from "../platform/hints.ts";
import { sql } from "../platform/sql.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { NoCapacityError, recordPlacementFailure } from "../scheduling/no-capacity.ts";
import { destroyAfterBackup, destroyPodNow, requireFinalBackup } from "./destroy-pod.ts";
import { dryRunView, presentOrder } from "./dry-run-view.ts";
import { askHost, dryRunDestroy, dryRunOrder, dryRunScale, type DryRun } from "./dry-run.ts";
import { readExtraVolumes } from "./extra-volumes.ts";
import { domain, hostname, labels, sshKey } from "./hostnames.ts";
import { orderPod } from "./order-pod.ts";
import type { PodHints } from "./pod-hints.ts";
import { accepted, requester } from "./pod-power.http.ts";
import { acceptedView } from "./pod-view.ts";
import { findPod } from "./pod.ts";
import { scalePod } from "./scale-pod.ts";

/** What the routes of orders need. */
export interface PodOrderOptions {
  readonly hints: PodHints;
  /** For questions to hosts. */
  readonly allHints: Hints;
  readonly fleet: FleetView;
  readonly defaultRegion: string;
}

/** Resources of one's own. */
export const resources = z.strictObject({
  cores: z.number().int().min(1).max(512),
  memoryMb: z.number().int().min(64).max(4_194_304),
  swapMb: z.number().int().min(0).max(1_048_576).optional(),
  diskGb: z.number().int().min(1).max(65_536),
});

const orderBody = z
  .strictObject({
    planCode: z.string().min(1).max(64).optional(),
    resources: resources.optional(),
    name: z.string().min(1).max(100).optional(),
    hostname,
    domain: domain.optional(),
    region: z
      .string()
      .regex(/^[a-z0-9-]{1,40}$/)
      .optional(),
    template: z.string().min(1).max(255).optional(),
    sshKeys: z.array(sshKey).max(50).optional(),
    labels: labels.optional(),
    backup: backupWish.optional().openapi({ description: "Rules for its backups that differ from the plan's." }),
    placement: z.strictObject({ nodeLabels: labels.optional(), antiAffinity: labels.optional() }).optional(),
  })
  .refine((body) => (body.planCode === undefined) !== (body.resources === undefined), {
    path: ["planCode"],
    error: "name either planCode or resources",
  })
  .openapi("PodOrder");

const scaleBody = z
  .strictObject({
    planCode: z.string().min(1).max(64).optional(),
    resources: resources.omit({ swapMb: true }).partial().optional(),
  })
  .refine((body) => (body.planCode === undefined) !== (body.resources === undefined), {
    path: ["planCode"],
    error: "name either planCode or resources",
  })
  .openapi("PodScale");

const finalBackup = queryFlag("Make a backup first, which stays for 30 days; without it nothing is removed.");

const removeVolumes = queryFlag(
  "Volumes besides the root disk that somebody gave the container by hand go too; without it a pod with any is not destroyed (409 MORE_THAN_A_POD).",
);

/** Order, scale and destroy. */
export function registerPodOrderRoutes(routes: RouteTable, options: PodOrderOptions): void {
  registerOrder(routes, options);
  registerScale(routes, options);
  registerDestroy(routes, options);
}

function registerOrder(routes: RouteTable, options: PodOrderOptions): void {
  for (const path of ["/api/cloud-pods", "/api/cloud-pods/order"] as const) {
    route(routes, {
      method: "post",
      path,
      summary: "Order a pod",
      tags: ["pods"],
      access: { scope: "PROVISIONING" },
      idempotent: true,
      request: {
        query: z.object({ dryRun }),
        body: orderBody,
        example: { planCode: "CLOUD_POD_STARTER", hostname: "shop-1" },
      },
      responses: { 202: acceptedView, 200: dryRunView },
      async handler({ query, body }, ctx) {
        const who = { ...requester(ctx), ...options, now: ctx.now, isEmailVerified: () => isEmailVerified(ctx) };
        if (query.dryRun) {
          return await answerDryRun(ctx, options, await ctx.inTenant((tx) => dryRunOrder(tx, who, body)));
        }
        return accepted(
          await keepingFailures(ctx, () => ctx.inTenant((tx) => orderPod(tx, who, body))),
          ctx,
          options.hints,
        );
      },
    });
  }
}

/** Whether the caller's address is proven. */
export async function isEmailVerified(ctx: TenantContext): Promise<boolean> {
  const rows = await ctx.system.query(
    sql`SELECT FROM users WHERE id = ${ctx.actor.userId} AND email_verified_at IS NOT NULL`,
  );
  return rows.length > 0;
}

/** An order or a change without a place leaves nothing but the note that it was asked for, for headroom and the overview. */
export async function keepingFailures<T>(ctx: TenantContext, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof NoCapacityError) {
      await ctx.system.transaction((tx) => recordPlacementFailure(tx, { ...requester(ctx), error }));
      if (ctx.actor.platformRole !== "USER") throw error.forOperator();
    }
    throw error;
  }
}

function registerScale(routes: RouteTable, options: PodOrderOptions): void {
  for (const path of ["/api/cloud-pods/:pod/scale", "/api/cloud-pods/:pod/resize"] as const) {
    route(routes, {
      method: "post",
      path,
      summary: "Change the plan or the resources of a pod",
      tags: ["pods"],
      access: { scope: "PROVISIONING" },
      idempotent: true,
      checksVersion: true,
      request: { query: z.object({ dryRun }), body: scaleBody, example: { planCode: "CLOUD_POD_PREMIUM" } },
      responses: { 202: acceptedView, 200: dryRunView },
      async handler({ params, query, body, ifMatch }, ctx) {
        const who = { ...requester(ctx, ifMatch), now: ctx.now, isEmailVerified: () => isEmailVerified(ctx) };
        if (!query.dryRun) {
          return accepted(
            await keepingFailures(ctx, () => ctx.inTenant((tx) => scalePod(tx, who, params.pod, body))),
            ctx,
            options.hints,
          );
        }
        const plan = await ctx.inTenant(async (tx) => {
          const pod = await findPod(tx, ctx.tenantId, params.pod);
          checkVersion(ifMatch, pod.version);
          return await dryRunScale(tx, who, pod, body);
        });
        return await answerDryRun(ctx, options, plan);
      },
    });
  }
}

async function answerDryRun(ctx: TenantContext, options: PodOrderOptions, plan: DryRun) {
  const commands = await askHost({ db: ctx.system, hints: options.allHints }, plan);
  return {
    status: 200 as const,
    body: {
      dryRun: true as const,
      ...presentOrder(ctx, plan),
      commands: "commandLines" in commands ? [...commands.commandLines] : null,
      commandsReason: "reason" in commands ? commands.reason : null,
      dnsRecords: [],
    },
  };
}

function registerDestroy(routes: RouteTable, options: PodOrderOptions): void {
  for (const [method, path] of [
    ["delete", "/api/cloud-pods/:pod"],
    ["post", "/api/cloud-pods/:pod/destroy"],
  ] as const) {
    route(routes, {
      method,
      path,
      summary: "Destroy a pod with its disk",
      tags: ["pods"],
      access: { scope: "PROVISIONING" },
      ...(method === "post" ? { idempotent: true as const } : {}),
      checksVersion: true,
      request: { query: z.object({ dryRun, finalBackup, removeVolumes }) },
      responses: { 202: acceptedView, 200: dryRunView },
      async handler({ params, query, ifMatch }, ctx) {
        const pod = await ctx.inTenant((tx) => findPod(tx, ctx.tenantId, params.pod));
        // Inventories hold the containers of all tenants.
        const volumes = (await readExtraVolumes(ctx.system, [pod.id])).get(pod.id);
        const how = { volumes, removeVolumes: query.removeVolumes };
        if (query.dryRun) {
          checkVersion(ifMatch, pod.version);
          if (query.finalBackup) {
            requireFinalBackup(pod, how);
            await ctx.inTenant((tx) => chooseBackupPlace(tx, pod));
          }
          return await answerDryRun(ctx, options, dryRunDestroy(pod, how));
        }
        const who = requester(ctx, ifMatch);
        const destroyed = await ctx.inTenant((tx) =>
          query.finalBackup ? destroyAfterBackup(tx, who, pod.id, how) : destroyPodNow(tx, who, pod.id, ctx.now, how),
        );
        return accepted(destroyed, ctx, options.hints);
      },
    });
  }
}
