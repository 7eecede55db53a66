import { z } from "@hono/zod-openapi";
import { drainStates } from "@cloudpods/shared/drain-lifecycle";
import { timestamp, uuid } from "../http/fields.ts";
import { nodeStates } from "../nodes/node-state.ts";

const count = z.number().int();
const seconds = z.number().int();
const megabytes = z.number().int();

const coreRole = z.object({
  role: z.string().openapi({ example: "hypervisor" }),
  total: count,
  states: z.array(z.object({ state: z.string().openapi({ enum: [...nodeStates] }), nodes: count })),
  nodes: z
    .array(
      z.object({
        id: uuid,
        name: z.string(),
        region: z.string(),
        state: z.enum(nodeStates),
        stateSince: timestamp,
        schedulable: z.boolean(),
        lastHeartbeatAt: timestamp.nullable(),
        cpuBusyBasisPoints: z.number().int().nullable(),
        memoryAvailableMb: megabytes.nullable(),
        agentVersion: z.string().nullable(),
        conditions: z.array(z.string()).openapi({ example: ["NoQuorum"] }),
      }),
    )
    .openapi({ description: "Those worst off first, twenty at most." }),
});

const queues = z.object({
  tasks: z.array(z.object({ type: z.string(), state: z.string(), tasks: count, oldestSeconds: seconds })),
  commands: z.array(z.object({ state: z.string(), commands: count, oldestSeconds: seconds })),
  notifications: z.array(
    z.object({
      channel: z.string(),
      waiting: count,
      retried: count.openapi({ description: "Of those waiting, what has failed before." }),
      oldestSeconds: seconds,
    }),
  ),
  deadLetters: z
    .array(
      z.object({
        kind: z.enum(["notification", "message", "sample"]),
        reason: z.string(),
        letters: count,
        lastAt: timestamp,
      }),
    )
    .openapi({
      description: "Given up in the last 24 hours and not tried again; of each kind the last 10,000 are counted.",
    }),
});

const ended = {
  succeeded: count,
  failed: count,
  cancelled: count,
  successRate: z.number().nullable().openapi({ description: "Of what succeeded or failed; null with neither." }),
};

const provisioning = z.object({
  since: timestamp,
  ...ended,
  ordersWithoutPlace: count,
  types: z.array(
    z.object({
      type: z.string(),
      ...ended,
      p50Seconds: z.number().nullable().openapi({ description: "From order to end, of what succeeded." }),
      p95Seconds: z.number().nullable(),
    }),
  ),
  recentFailures: z.array(
    z.object({
      taskId: uuid,
      type: z.string(),
      podId: uuid,
      vmid: z.number().int(),
      tenantId: uuid,
      node: z.string().nullable(),
      step: z.string(),
      errorCode: z.string().nullable(),
      errorMessage: z.string().nullable(),
      finishedAt: timestamp,
    }),
  ),
});

const metering = z.object({
  hosts: count.openapi({ description: "Hypervisors." }),
  neverReported: count.openapi({ description: "Hypervisors of which no sample has come yet." }),
  lag: z
    .object({ p50Seconds: seconds, p95Seconds: seconds, maxSeconds: seconds })
    .nullable()
    .openapi({ description: "How far back the samples of hosts that can be heard are complete." }),
  behind: z
    .array(
      z.object({
        id: uuid,
        name: z.string(),
        state: z.enum(nodeStates),
        completeUntil: timestamp,
        lagSeconds: seconds,
        spoolDepth: count.nullable(),
        spoolOldestAt: timestamp.nullable(),
      }),
    )
    .openapi({ description: "Hosts whose samples are furthest behind, ten at most, beginning at five minutes." }),
  spools: z.object({ total: count, max: count, oldestAt: timestamp.nullable() }).openapi({
    description: "Batches that wait on hosts, as they told last.",
  }),
  lostBatches: count.openapi({ description: "Numbers that were given up in the last 24 hours." }),
  rolledUpTo: timestamp.nullable(),
  dirtyHours: z.object({ waiting: count, oldest: timestamp.nullable() }).openapi({
    description: "Ended hours whose figures must be made, anew or for the first time.",
  }),
  dirtyDays: count,
  dirtyMonths: count,
  lastVerification: z.object({ yearMonth: z.string(), verifiedAt: timestamp, findings: count }).nullable(),
});

const security = z.object({
  users: z.object({
    active: count,
    withoutVerifiedEmail: count,
    administrators: count,
    operators: count,
    liveSessions: count,
  }),
  apiTokens: z.object({ live: count, withoutExpiry: count, unusedFor90Days: count }),
  signIns: z.object({
    failedInLastHour: count.openapi({ description: "Failures that were followed by no success." }),
    blockedAccounts: count,
    blockedAddresses: count,
  }),
  certificates: z.object({
    authorityExpiresAt: timestamp.nullable(),
    expiring: z.array(z.object({ id: uuid, name: z.string(), expiresAt: timestamp })).openapi({
      description: "Hosts whose certificate ends within seven days (renewal begins ten days before), twenty at most.",
    }),
    revokedNodes: z.array(z.object({ id: uuid, name: z.string() })).openapi({
      description: "Hosts in the fleet whose certificates are revoked, twenty at most.",
    }),
  }),
  audit: z.object({
    unsealedRows: count,
    sealLagSeconds: seconds,
    lastSealAt: timestamp.nullable(),
    lastVerifiedAt: timestamp.nullable().openapi({ description: "When what is new was proved last; every minute." }),
    wholeVerifiedAt: timestamp.nullable().openapi({ description: "When all of it was proved last; every day." }),
    intact: z
      .boolean()
      .nullable()
      .openapi({ description: "Whether the log is as it was sealed; null: not proved yet." }),
    fault: z
      .object({ seq: z.string(), code: z.string() })
      .nullable()
      .openapi({ description: "The first place that is not, and how; `/api/ops/audit/verify` tells more." }),
  }),
});

const resource = z.object({
  allocatable: count.openapi({ description: "Of all hosts in the fleet." }),
  allocated: count,
  free: count.openapi({ description: "On hosts that take orders now; not the difference of the other two." }),
});

const capacity = z.array(
  z.object({
    region: z.string(),
    hosts: count,
    hostsOpen: count.openapi({ description: "Hosts that take orders now." }),
    hostsOverallocated: count.openapi({ description: "Hosts that shrank below what is promised." }),
    cpuCores: resource,
    memoryMb: resource,
    diskGb: resource.openapi({ description: "Of storages for root disks; a shared one counts once." }),
    headroom: z.array(z.object({ planCode: z.string(), pods: count })),
  }),
);

const pods = z.object({
  byStatus: z.array(z.object({ status: z.string(), pods: count })),
  onSilentHosts: count.openapi({ description: "On hosts that are offline or lost." }),
  powerDrift: count.openapi({ description: "Active pods seen in another power state than is wanted." }),
});

const orphans = z.object({
  unmanaged: count.openapi({ description: "Containers on hosts that carry no mark of ours." }),
  misplaced: count.openapi({ description: "Containers with the mark of a pod that is not placed there." }),
  containers: z
    .array(
      z.object({
        nodeId: uuid,
        node: z.string(),
        vmid: z.number().int(),
        podId: uuid.nullable(),
        firstSeenAt: timestamp,
        lastSeenAt: timestamp,
        sightings: count,
      }),
    )
    .openapi({ description: "Misplaced ones first, twenty at most." }),
});

const findings = z.object({
  byKind: z.array(z.object({ kind: z.string(), findings: count, oldestAt: timestamp })),
  dismissed: count.openapi({ description: "Seen and left so by an operator." }),
  held: z.boolean().openapi({
    description: "Nothing is done by itself: a fault of ours is presumed, or hosts are awaited after a restore.",
  }),
  newest: z
    .array(
      z.object({
        id: uuid,
        node: z.string(),
        vmid: z.number().int(),
        podId: uuid.nullable(),
        kind: z.string(),
        subject: z.string(),
        firstSeenAt: timestamp,
        sightings: count,
        action: z.string().nullable(),
        offered: z.array(z.string()),
      }),
    )
    .openapi({ description: "Twenty at most; containers that nobody manages come last." }),
});

const backups = z.object({
  running: count,
  succeeded: count.openapi({ description: "Of the last 24 hours." }),
  failed: count.openapi({ description: "Of the last 24 hours." }),
  lastSuccessAt: timestamp.nullable(),
  due: count.openapi({ description: "Whose time has come and that were not begun." }),
  oldestDueAt: timestamp.nullable(),
  damaged: count.openapi({ description: "Not there or not readable any more." }),
});

const drain = z.object({
  id: uuid,
  nodeId: uuid,
  node: z.string(),
  kind: z.enum(["drain", "evacuation"]),
  state: z.enum(drainStates),
  reason: z.string(),
  startedAt: timestamp,
  deadlineAt: timestamp,
  finishedAt: timestamp.nullable(),
  outcome: z.string().nullable().openapi({ description: "Why it ended as it did." }),
  pods: count,
  done: count.openapi({ description: "Pods that are away, or gone." }),
  moving: count,
  stuck: count.openapi({ description: "Pods without a way or a place, whose move failed, or that were left." }),
});

const drains = z.object({
  running: z.array(drain).openapi({ description: "Hosts that are being emptied or given up; twenty at most." }),
  incomplete: z.array(drain).openapi({
    description: "Of the last 24 hours: hosts that were not emptied, newest first; twenty at most.",
  }),
});

const controlPlane = z.object({
  replicas: z.array(
    z.object({
      id: uuid,
      hostname: z.string(),
      roles: z.array(z.string()),
      runsBroker: z.boolean(),
      startedAt: timestamp,
      seenAt: timestamp,
      alive: z.boolean().openapi({ description: "Seen within the last minute." }),
    }),
  ),
  fleetEpoch: z.bigint().openapi({ type: "string" }),
  holdsOrders: z.boolean().openapi({ description: "The database was restored and hosts have not all reported yet." }),
  database: z.record(z.string(), z.string()).openapi({
    description: "Settings that decide whether what was committed survives a crash.",
    example: { synchronous_commit: "on", synchronous_standby_names: "" },
  }),
});

/** All that an operator must know at a glance, of one instant. */
export const overviewView = z
  .object({
    at: timestamp,
    coreNodes: z.array(coreRole),
    conditions: z.array(z.object({ kind: z.string(), nodes: count, oldestAt: timestamp })),
    queues,
    provisioning,
    metering,
    security,
    capacity,
    pods,
    orphans,
    backups,
    findings,
    drains,
    controlPlane,
  })
  .openapi("PlatformOverview");

/** The overview as the route gives it. */
export type Overview = z.input<typeof overviewView>;
