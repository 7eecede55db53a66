import { z } from "zod";

const resource = z.object({ allocatable: z.number(), allocated: z.number(), free: z.number() });

const drainProgress = z.object({
  node: z.string(),
  kind: z.string(),
  deadlineAt: z.string(),
  outcome: z.string().nullable(),
  pods: z.number(),
  done: z.number(),
  moving: z.number(),
  stuck: z.number(),
});

/** The members of the platform's overview that are shown. */
export const overview = z.object({
  at: z.string(),
  coreNodes: z.array(
    z.object({
      role: z.string(),
      total: z.number(),
      states: z.array(z.object({ state: z.string(), nodes: z.number() })),
      nodes: z.array(
        z.object({
          name: z.string(),
          region: z.string(),
          state: z.string(),
          stateSince: z.string(),
          schedulable: z.boolean(),
          conditions: z.array(z.string()),
        }),
      ),
    }),
  ),
  queues: z.object({
    tasks: z.array(z.object({ type: z.string(), state: z.string(), tasks: z.number(), oldestSeconds: z.number() })),
    commands: z.array(z.object({ state: z.string(), commands: z.number(), oldestSeconds: z.number() })),
    notifications: z.array(z.object({ channel: z.string(), waiting: z.number(), oldestSeconds: z.number() })),
    deadLetters: z.array(z.object({ kind: z.string(), reason: z.string(), letters: z.number() })),
  }),
  provisioning: z.object({
    succeeded: z.number(),
    failed: z.number(),
    cancelled: z.number(),
    successRate: z.number().nullable(),
    ordersWithoutPlace: z.number(),
    recentFailures: z.array(
      z.object({
        taskId: z.string(),
        type: z.string(),
        vmid: z.number(),
        node: z.string().nullable(),
        step: z.string(),
        errorCode: z.string().nullable(),
        finishedAt: z.string(),
      }),
    ),
  }),
  metering: z.object({
    hosts: z.number(),
    neverReported: z.number(),
    lag: z.object({ p50Seconds: z.number(), p95Seconds: z.number(), maxSeconds: z.number() }).nullable(),
    behind: z.array(z.object({ name: z.string(), lagSeconds: z.number() })),
    spools: z.object({ total: z.number() }),
    lostBatches: z.number(),
    rolledUpTo: z.string().nullable(),
    dirtyHours: z.object({ waiting: z.number() }),
    lastVerification: z.object({ yearMonth: z.string(), verifiedAt: z.string(), findings: z.number() }).nullable(),
  }),
  security: z.object({
    users: z.object({
      active: z.number(),
      administrators: z.number(),
      operators: z.number(),
      liveSessions: z.number(),
    }),
    apiTokens: z.object({ live: z.number(), withoutExpiry: z.number() }),
    signIns: z.object({ failedInLastHour: z.number(), blockedAccounts: z.number(), blockedAddresses: z.number() }),
    certificates: z.object({
      authorityExpiresAt: z.string().nullable(),
      expiring: z.array(z.object({ name: z.string(), expiresAt: z.string() })),
      revokedNodes: z.array(z.object({ name: z.string() })),
    }),
    audit: z.object({
      unsealedRows: z.number(),
      lastVerifiedAt: z.string().nullable(),
      wholeVerifiedAt: z.string().nullable(),
      intact: z.boolean().nullable(),
      fault: z.object({ seq: z.string(), code: z.string() }).nullable(),
    }),
  }),
  capacity: z.array(
    z.object({
      region: z.string(),
      hosts: z.number(),
      hostsOpen: z.number(),
      hostsOverallocated: z.number(),
      cpuCores: resource,
      memoryMb: resource,
      diskGb: resource,
      headroom: z.array(z.object({ planCode: z.string(), pods: z.number() })),
    }),
  ),
  pods: z.object({
    byStatus: z.array(z.object({ status: z.string(), pods: z.number() })),
    onSilentHosts: z.number(),
    powerDrift: z.number(),
  }),
  orphans: z.object({ unmanaged: z.number(), misplaced: z.number() }),
  backups: z.object({
    running: z.number(),
    succeeded: z.number(),
    failed: z.number(),
    lastSuccessAt: z.string().nullable(),
    due: z.number(),
    oldestDueAt: z.string().nullable(),
    damaged: z.number(),
  }),
  findings: z.object({
    byKind: z.array(z.object({ kind: z.string(), findings: z.number() })),
    held: z.boolean(),
  }),
  drains: z.object({ running: z.array(drainProgress), incomplete: z.array(drainProgress) }),
  controlPlane: z.object({
    replicas: z.array(
      z.object({ hostname: z.string(), roles: z.array(z.string()), startedAt: z.string(), alive: z.boolean() }),
    ),
    holdsOrders: z.boolean(),
    database: z.record(z.string(), z.string()),
  }),
});
