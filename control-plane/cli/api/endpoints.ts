import type { z } from "zod";
import * as drains from "./drain-shapes.ts";
import { overview } from "./overview-shape.ts";
import * as shapes from "./shapes.ts";

/** A route of the API as commands use it. */
export interface Endpoint {
  readonly method: "get" | "post" | "put" | "delete";
  readonly path: string;
  /** Of the answer that is read. */
  readonly status: 200 | 201 | 202 | 204;
  readonly answer: z.ZodType;
  /** It takes an Idempotency-Key, and always gets one. The others do the same when they are done twice. */
  readonly idempotent?: true;
  /** Answers the plan and changes nothing. */
  readonly dryRun?: true;
}

const changesPod = { method: "post", status: 202, answer: shapes.accepted, idempotent: true } as const;
const looks = { method: "get", status: 200 } as const;
const puts = { method: "put", status: 200 } as const;
const beginsDrain = { method: "post", status: 202, answer: drains.drainDetail, idempotent: true } as const;
const previews = { method: "post", status: 200, answer: shapes.dryRun, dryRun: true } as const;

/** Every route that commands use, by what it is used for. */
export const endpoints = {
  signIn: { method: "post", path: "/api/auth/login", status: 200, answer: shapes.newSession },
  signOut: { method: "post", path: "/api/auth/logout", status: 204, answer: shapes.noBody },
  showProfile: { method: "get", path: "/api/security/me/profile", status: 200, answer: shapes.profile },

  listTenants: { method: "get", path: "/api/tenants", status: 200, answer: shapes.pageOf(shapes.tenant) },
  listPods: { method: "get", path: "/api/cloud-pods", status: 200, answer: shapes.pageOf(shapes.pod) },
  listAllPods: { method: "get", path: "/api/cloud-pods/admin/all", status: 200, answer: shapes.pageOf(shapes.pod) },
  showPod: { method: "get", path: "/api/cloud-pods/:pod", status: 200, answer: shapes.pod },
  showHealth: { method: "get", path: "/api/cloud-pods/:pod/health", status: 200, answer: shapes.health },
  showPlacement: { method: "get", path: "/api/cloud-pods/:pod/placement", status: 200, answer: shapes.placement },
  createPod: { ...changesPod, path: "/api/cloud-pods" },
  previewCreate: { ...previews, path: "/api/cloud-pods" },
  scalePod: { ...changesPod, path: "/api/cloud-pods/:pod/scale" },
  previewScale: { ...previews, path: "/api/cloud-pods/:pod/scale" },
  startPod: { ...changesPod, path: "/api/cloud-pods/:pod/start" },
  stopPod: { ...changesPod, path: "/api/cloud-pods/:pod/stop" },
  restartPod: { ...changesPod, path: "/api/cloud-pods/:pod/restart" },
  suspendPod: { ...changesPod, path: "/api/cloud-pods/:pod/suspend" },
  resumePod: { ...changesPod, path: "/api/cloud-pods/:pod/resume" },
  destroyPod: { ...changesPod, path: "/api/cloud-pods/:pod/destroy" },
  previewDestroy: { ...previews, path: "/api/cloud-pods/:pod/destroy" },

  migratePod: { ...changesPod, path: "/api/cloud-pods/admin/:pod/migrate" },
  previewMigrate: { ...previews, path: "/api/cloud-pods/admin/:pod/migrate", answer: drains.plannedMove },
  adoptPod: { ...changesPod, path: "/api/cloud-pods/admin/adopt" },

  backUpPod: { ...changesPod, path: "/api/cloud-pods/:pod/backup" },
  listBackups: {
    method: "get",
    path: "/api/cloud-pods/:pod/backups",
    status: 200,
    answer: shapes.pageOf(shapes.backup),
  },
  restoreBackup: { ...changesPod, path: "/api/cloud-pods/:pod/backups/:id/restore" },
  previewRestore: { ...previews, path: "/api/cloud-pods/:pod/backups/:id/restore", answer: shapes.restorePlan },
  deleteBackup: { method: "delete", path: "/api/cloud-pods/:pod/backups/:id", status: 202, answer: shapes.backup },
  showPodBackups: { ...looks, path: "/api/cloud-pods/:pod/backup-policy", answer: shapes.backupPolicy },
  changePodBackups: { ...puts, path: "/api/cloud-pods/:pod/backup-policy", answer: shapes.backupPolicy },
  showPlanBackups: { ...looks, path: "/api/cloud-pods/plans/:code/backup-policy", answer: shapes.planBackupPolicy },
  changePlanBackups: { ...puts, path: "/api/cloud-pods/plans/:code/backup-policy", answer: shapes.planBackupPolicy },

  listTasks: { method: "get", path: "/api/tasks", status: 200, answer: shapes.pageOf(shapes.task) },
  listPodTasks: { method: "get", path: "/api/cloud-pods/:pod/tasks", status: 200, answer: shapes.pageOf(shapes.task) },
  listQueue: {
    method: "get",
    path: "/api/cloud-pods/admin/provisioning-queue",
    status: 200,
    answer: shapes.pageOf(shapes.queuedTask),
  },
  showTask: { method: "get", path: "/api/tasks/:task", status: 200, answer: shapes.task },
  cancelTask: { method: "post", path: "/api/tasks/:task/cancel", status: 202, answer: shapes.task, idempotent: true },
  retryTask: { method: "post", path: "/api/tasks/:task/retry", status: 202, answer: shapes.task, idempotent: true },

  listNodes: { method: "get", path: "/api/nodes", status: 200, answer: shapes.pageOf(shapes.node) },
  showNode: { method: "get", path: "/api/nodes/:node", status: 200, answer: shapes.nodeDetail },
  makeJoinToken: {
    method: "post",
    path: "/api/nodes/join-tokens",
    status: 201,
    answer: shapes.joinToken,
    idempotent: true,
  },
  cordonNode: { method: "post", path: "/api/nodes/:node/cordon", status: 200, answer: shapes.node },
  uncordonNode: { method: "post", path: "/api/nodes/:node/uncordon", status: 200, answer: shapes.node },
  drainNode: { ...beginsDrain, path: "/api/nodes/:node/drain" },
  previewDrain: { ...previews, path: "/api/nodes/:node/drain", answer: drains.drainPlan },
  showDrain: { method: "get", path: "/api/nodes/:node/drain", status: 200, answer: drains.drainDetail },
  cancelDrain: { method: "delete", path: "/api/nodes/:node/drain", status: 202, answer: drains.drainDetail },
  listDrains: { method: "get", path: "/api/nodes/drains", status: 200, answer: shapes.pageOf(drains.drain) },
  evacuateNode: { ...beginsDrain, path: "/api/nodes/:node/evacuate" },
  previewEvacuate: { ...previews, path: "/api/nodes/:node/evacuate", answer: drains.drainPlan },
  listFindings: { method: "get", path: "/api/nodes/findings", status: 200, answer: shapes.pageOf(shapes.finding) },
  resolveFinding: {
    method: "post",
    path: "/api/nodes/findings/:finding/resolve",
    status: 200,
    answer: shapes.finding,
    idempotent: true,
  },
  changeNode: { ...puts, path: "/api/nodes/:node", answer: shapes.node },
  removeNode: { method: "delete", path: "/api/nodes/:node", status: 200, answer: shapes.nodeRemoval },

  simulatePlacement: { method: "post", path: "/api/scheduler/simulate", status: 200, answer: shapes.verdict },
  showOverview: { method: "get", path: "/api/ops/platform-overview", status: 200, answer: overview },
  showHeadroom: { method: "get", path: "/api/scheduler/headroom", status: 200, answer: shapes.headroom },
  listPlans: { method: "get", path: "/api/cloud-pods/plans", status: 200, answer: shapes.plans },
  showQuota: { method: "get", path: "/api/cloud-pods/quota", status: 200, answer: shapes.quota },
  showUsage: { method: "get", path: "/api/cloud-pods/usage/current", status: 200, answer: shapes.currentUsage },
  showPodUsage: { method: "get", path: "/api/cloud-pods/:pod/usage", status: 200, answer: shapes.usageHistory },
  showBudget: { method: "get", path: "/api/cloud-pods/budget", status: 200, answer: shapes.budget },
} as const satisfies Readonly<Record<string, Endpoint>>;

/** Name of an endpoint. */
export type EndpointName = keyof typeof endpoints;

/** What an endpoint answers. */
export type AnswerOf<Name extends EndpointName> = z.output<(typeof endpoints)[Name]["answer"]>;

type ParamsOf<Path extends string> = Path extends `${string}:${infer Name}/${infer Rest}`
  ? { readonly [K in Name]: string } & ParamsOf<`/${Rest}`>
  : Path extends `${string}:${infer Name}`
    ? { readonly [K in Name]: string }
    : unknown;

/** What an endpoint is called with. */
export type InputOf<Name extends EndpointName> = ParamsOf<(typeof endpoints)[Name]["path"]> & {
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly body?: unknown;
  /** Default: a new one for every call. */
  readonly idempotencyKey?: string | undefined;
};
