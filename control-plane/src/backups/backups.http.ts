import { z } from "@hono/zod-openapi";
import { dryRun, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toIdPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { askHosts } from "../nodes/ask-hosts.ts";
import type { PlannedCommand } from "../nodes/planned-command.ts";
import { sql } from "../platform/sql.ts";
import { readExtraVolumes } from "../pods/extra-volumes.ts";
import { domain, hostname, labels, sshKey } from "../pods/hostnames.ts";
import { keepingFailures, isEmailVerified, resources, type PodOrderOptions } from "../pods/pod-orders.http.ts";
import { accepted, requester } from "../pods/pod-power.http.ts";
import { acceptedView } from "../pods/pod-view.ts";
import { findPod } from "../pods/pod.ts";
import { backupModes, backupStates, selectBackups, type Backup } from "./backup.ts";
import { backupView, restorePlanView, toBackupView, toNewPodPlanView, toRestorePlanView } from "./backup-view.ts";
import { deleteBackup } from "./delete-backup.ts";
import { planNewPod, planRestore } from "./plan-restore.ts";
import { requestBackup } from "./request-backup.ts";
import { orderFromBackup, requestRestore } from "./request-restore.ts";

const tags = ["backups"];

const restoreBody = z
  .strictObject({
    asNewPod: z
      .boolean()
      .default(false)
      .openapi({ description: "A pod of its own beside the one that was backed up." }),
    planCode: z.string().min(1).max(64).optional(),
    resources: resources.optional(),
    name: z.string().min(1).max(100).optional(),
    hostname: hostname.optional(),
    domain: domain.optional(),
    sshKeys: z.array(sshKey).max(50).optional(),
    labels: labels.optional(),
  })
  .refine((body) => !body.asNewPod || body.hostname !== undefined, {
    path: ["hostname"],
    error: "a new pod needs a host name",
  })
  .refine((body) => body.asNewPod || Object.keys(body).length === 1, {
    path: ["asNewPod"],
    error: "only a new pod can be given another form; in place a pod keeps its own",
  })
  .refine((body) => body.planCode === undefined || body.resources === undefined, {
    path: ["planCode"],
    error: "name planCode or resources, not both",
  })
  .openapi("RestoreWish");

/** Backups of pods: made, listed, restored and deleted. */
export function registerBackupRoutes(routes: RouteTable, options: PodOrderOptions): void {
  registerMaking(routes, options);
  registerList(routes);
  registerRestore(routes, options);
  registerDeletion(routes);
}

function registerMaking(routes: RouteTable, { hints }: PodOrderOptions): void {
  route(routes, {
    method: "post",
    path: "/api/cloud-pods/:pod/backup",
    summary: "Back a pod up now",
    tags,
    access: { scope: "PROVISIONING" },
    idempotent: true,
    checksVersion: true,
    request: {
      body: z
        .strictObject({
          note: z.string().min(1).max(500).optional(),
          mode: z.enum(backupModes).optional().openapi({ description: "Absent: what disturbs the pod least." }),
        })
        .optional(),
      example: { note: "before the upgrade" },
    },
    responses: { 202: acceptedView.extend({ backupId: uuid }) },
    async handler({ params, body, ifMatch }, ctx) {
      const result = await ctx.inTenant((tx) => requestBackup(tx, requester(ctx, ifMatch), params.pod, body ?? {}));
      const answer = accepted(result, ctx, hints);
      return { ...answer, body: { ...answer.body, backupId: result.backupId } };
    },
  });
}

function registerList(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/:pod/backups",
    summary: "Backups of a pod, newest first; of a pod that is gone by its id",
    tags,
    access: { scope: "READ" },
    request: { query: listQuery.extend({ state: z.enum(backupStates).optional() }) },
    responses: { 200: listOf(backupView) },
    async handler({ params, query }, ctx) {
      const before = decodeCursor(query.cursor, 1)?.[0];
      const rows = await ctx.inTenant(async (tx) => {
        const pod = await findPod(tx, ctx.tenantId, params.pod);
        return await tx.query<Backup>(sql`
          ${selectBackups} WHERE b.pod_id = ${pod.id} ${query.state === undefined ? sql`` : sql`AND b.state = ${query.state}`}
            ${before === undefined ? sql`` : sql`AND b.id < ${before}::uuid`} ORDER BY b.id DESC LIMIT ${query.limit + 1}`);
      });
      return { status: 200, body: toIdPage(rows, query.limit, toBackupView) };
    },
  });
}

function registerRestore(routes: RouteTable, options: PodOrderOptions): void {
  route(routes, {
    method: "post",
    path: "/api/cloud-pods/:pod/backups/:id/restore",
    summary: "Make a pod what it was again, or a new pod of its backup",
    tags,
    access: { scope: "PROVISIONING" },
    idempotent: true,
    checksVersion: true,
    request: { query: z.object({ dryRun }), body: restoreBody, example: {} },
    responses: { 202: acceptedView, 200: restorePlanView },
    async handler({ params, query, body, ifMatch }, ctx) {
      const who = requester(ctx, ifMatch);
      const { asNewPod, hostname: name, ...wish } = body;
      const ask = async (commands: readonly PlannedCommand[]) =>
        (await askHosts({ db: ctx.system, hints: options.allHints }, [commands])).flat();
      if (!asNewPod || name === undefined) {
        const pod = await ctx.inTenant((tx) => findPod(tx, ctx.tenantId, params.pod));
        // Inventories hold the containers of all tenants.
        const parts = (await readExtraVolumes(ctx.system, [pod.id], "snapshots")).get(pod.id);
        if (query.dryRun) {
          const plan = await ctx.inTenant((tx) => planRestore(tx, who, pod.id, params.id, parts));
          return { status: 200, body: toRestorePlanView(plan, await ask(plan.commands), ctx.now) };
        }
        const restored = await ctx.inTenant((tx) => requestRestore(tx, who, pod.id, params.id, parts));
        return accepted(restored, ctx, options.hints);
      }
      const ordering = { ...who, ...options, now: ctx.now, isEmailVerified: () => isEmailVerified(ctx) };
      const newPod = { ...wish, hostname: name };
      if (query.dryRun) {
        const plan = await ctx.inTenant((tx) => planNewPod(tx, ordering, params.pod, params.id, newPod));
        return { status: 200, body: toNewPodPlanView(plan, await ask(plan.commands), ctx) };
      }
      const ordered = await keepingFailures(ctx, () =>
        ctx.inTenant((tx) => orderFromBackup(tx, ordering, params.pod, params.id, newPod)),
      );
      return accepted(ordered, ctx, options.hints);
    },
  });
}

function registerDeletion(routes: RouteTable): void {
  route(routes, {
    method: "delete",
    path: "/api/cloud-pods/:pod/backups/:id",
    summary: "Delete a backup; it is gone when its host has removed it",
    tags,
    access: { scope: "PROVISIONING" },
    responses: { 202: backupView },
    async handler({ params }, ctx) {
      const backup = await ctx.inTenant((tx) => deleteBackup(tx, requester(ctx), params.pod, params.id, ctx.now));
      return { status: 202, body: toBackupView(backup) };
    },
  });
}
