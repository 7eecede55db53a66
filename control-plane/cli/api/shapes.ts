import { z } from "zod";

/** The members of answers that commands show; answers may have more. A test holds them against the API's document. */

const timestamp = z.string();
const shownError = z.object({ code: z.string(), message: z.string() }).nullable();
const money = z.object({ amount: z.string(), currency: z.string() });

/** A list's page. */
export function pageOf<Item extends z.ZodType>(item: Item) {
  return z.object({ data: z.array(item), nextCursor: z.string().nullable() });
}

export const profile = z.object({
  email: z.string(),
  platformRole: z.string(),
  tenants: z.array(z.object({ id: z.string(), slug: z.string(), name: z.string(), role: z.string() })),
});

export const newSession = z.object({ token: z.string(), expiresAt: timestamp, user: profile });

export const tenant = z.object({ id: z.string(), slug: z.string(), name: z.string(), status: z.string() });

export const pod = z.object({
  id: z.string(),
  vmid: z.number(),
  tenantId: z.string(),
  name: z.string(),
  hostname: z.string(),
  domain: z.string().nullable(),
  region: z.string(),
  status: z.string(),
  power: z.string(),
  desiredPower: z.string(),
  planCode: z.string().nullable(),
  cores: z.number(),
  memoryMb: z.number(),
  swapMb: z.number(),
  diskGb: z.number(),
  ip: z.string().nullable(),
  mac: z.string(),
  node: z.string().nullable(),
  labels: z.record(z.string(), z.string()),
  holds: z.array(z.object({ kind: z.string(), effect: z.string(), reason: z.string().nullable(), since: timestamp })),
  lastError: shownError,
  orderedAt: timestamp,
  activatedAt: timestamp.nullable(),
});

export const task = z.object({
  id: z.string(),
  podId: z.string(),
  type: z.string(),
  state: z.string(),
  step: z.string(),
  percent: z.number(),
  attempts: z.number(),
  error: shownError,
  requestedBy: z.string(),
  createdAt: timestamp,
  finishedAt: timestamp.nullable(),
});

export const accepted = z.object({ pod, task });

export const backup = z.object({
  id: z.string(),
  kind: z.string(),
  state: z.string(),
  mode: z.string(),
  sizeBytes: z.string().nullable(),
  note: z.string().nullable(),
  startedAt: timestamp,
  verifiedAt: timestamp.nullable(),
  damagedAt: timestamp.nullable(),
  expiresAt: timestamp.nullable(),
  deleteRequestedAt: timestamp.nullable(),
  error: shownError,
});

export const queuedTask = task.extend({
  tenantId: z.string(),
  ageSeconds: z.number(),
  command: z.object({ op: z.string(), state: z.string(), node: z.string() }).nullable(),
});

const ordered = {
  quota: z.object({ allowed: z.boolean(), message: z.string().optional() }).nullable(),
  placement: z
    .object({
      node: z.string().nullable(),
      summary: z.string(),
      reasons: z.array(z.object({ filter: z.string(), nodes: z.number() })),
    })
    .nullable(),
  price: z.object({ amount: z.string(), currency: z.string(), per: z.string() }).nullable(),
};

export const dryRun = z.object({
  ...ordered,
  commands: z.array(z.string()).nullable(),
  commandsReason: z.string().nullable(),
  dnsRecords: z.array(z.unknown()),
});

/** What hosts would be told. */
export const toldCommands = z.array(
  z.object({
    node: z.string(),
    command: z.string(),
    lines: z.array(z.string()).nullable(),
    reason: z.string().nullable(),
  }),
);

export const restorePlan = z.object({
  name: z.string(),
  vmid: z.number(),
  backup: z.object({ id: z.string(), madeAt: timestamp, ageSeconds: z.number() }),
  newerBackups: z.number(),
  newPod: z
    .object({
      hostname: z.string(),
      planCode: z.string().nullable(),
      cores: z.number(),
      memoryMb: z.number(),
      diskGb: z.number(),
      ...ordered,
    })
    .nullable(),
  runs: z.boolean(),
  commands: toldCommands,
});

export const health = z.object({
  healthy: z.boolean(),
  observationAgeSeconds: z.number().nullable(),
  conditions: z.array(z.object({ kind: z.string(), message: z.string() })),
});

// The document says of the two lists only that they are lists: their members are what a simulation names.
const candidate = z.object({ node: z.string(), points: z.number(), scores: z.record(z.string(), z.number()) });
const rejection = z.object({ node: z.string(), reason: z.string() });

export const placement = z.object({
  node: z.string().nullable(),
  region: z.string(),
  storage: z.string().nullable(),
  summary: z.string().nullable(),
  hosts: z.object({ candidates: z.array(z.unknown()), rejected: z.array(z.unknown()) }).nullable(),
  history: z.array(
    z.object({
      node: z.string().nullable(),
      from: timestamp,
      to: timestamp.nullable(),
      downtimeMs: z.number().nullable(),
    }),
  ),
});

/** The members of `placement.hosts`. */
export const placementHosts = z.object({ candidates: z.array(candidate), rejected: z.array(rejection) });

export const verdict = z.object({
  summary: z.string(),
  chosen: candidate.extend({ storage: z.string() }).nullable(),
  nodes: z.number(),
  fitting: z.number(),
  candidates: z.array(candidate),
  rejected: z.array(rejection),
});

export const headroom = z.object({
  regions: z.array(
    z.object({
      region: z.string(),
      nodes: z.number(),
      plans: z.array(z.object({ planCode: z.string(), pods: z.number() })),
    }),
  ),
  failures: z.array(
    z.object({
      region: z.string().nullable(),
      planCode: z.string().nullable(),
      cores: z.number(),
      memoryMb: z.number(),
      diskGb: z.number(),
      orders: z.number(),
      lastAt: timestamp,
      summary: z.string(),
    }),
  ),
});

const promised = z.object({ allocatable: z.number(), allocated: z.number(), free: z.number() });

export const node = z.object({
  id: z.string(),
  name: z.string(),
  cluster: z.string().nullable(),
  role: z.string(),
  region: z.string(),
  labels: z.record(z.string(), z.string()),
  state: z.string(),
  stateSince: timestamp,
  schedulable: z.boolean(),
  cordonReason: z.string().nullable(),
  cordonedAt: timestamp.nullable(),
  cordonedUntil: timestamp.nullable(),
  cordonedBy: z.string().nullable(),
  cordonedByEmail: z.string().nullable(),
  maintenanceNote: z.string().nullable(),
  backupStorage: z.string().nullable(),
  lastHeartbeatAt: timestamp.nullable(),
  agentVersion: z.string().nullable(),
  pveVersion: z.string().nullable(),
  clockSkewMs: z.number().nullable(),
  spoolDepth: z.number().nullable(),
  certificateExpiresAt: timestamp.nullable(),
  cpu: promised,
  memoryMb: promised,
  conditions: z.array(z.object({ kind: z.string(), message: z.string(), since: timestamp })),
  storages: z.array(
    z.object({
      name: z.string(),
      type: z.string(),
      available: z.boolean(),
      holdsRootDisks: z.boolean(),
      holdsBackups: z.boolean(),
      allocatableGb: z.number(),
      allocatedGb: z.number(),
      freeGb: z.number(),
    }),
  ),
  podCount: z.number(),
});

export const nodeDetail = node.extend({
  pods: z.array(
    z.object({
      vmid: z.number(),
      name: z.string(),
      tenantId: z.string(),
      status: z.string(),
      observedPower: z.string(),
    }),
  ),
});

const backupRules = z.object({
  enabled: z.boolean(),
  everyHours: z.number(),
  keepLast: z.number(),
  keepDaily: z.number(),
  keepWeekly: z.number(),
});
export const planBackupPolicy = backupRules.extend({ planCode: z.string() });
export const backupPolicy = backupRules.extend({
  source: z.string(),
  nextAt: timestamp.nullable(),
  lastSuccessAt: timestamp.nullable(),
});

export const finding = z.object({
  id: z.string(),
  node: z.string(),
  vmid: z.number(),
  podId: z.string().nullable(),
  kind: z.string(),
  subject: z.string(),
  evidence: z.record(z.string(), z.unknown()),
  offered: z.array(z.string()),
  state: z.string(),
  firstSeenAt: timestamp,
  resolvedAt: timestamp.nullable(),
  sightings: z.number(),
  action: z.string().nullable(),
  actionState: z.string().nullable(),
  actionError: z.string().nullable(),
  taskId: z.string().nullable(),
});

export const joinToken = z.object({
  id: z.string(),
  name: z.string(),
  role: z.string(),
  expiresAt: timestamp,
  token: z.string(),
});

const plan = z.object({
  code: z.string(),
  name: z.string(),
  family: z.string(),
  cores: z.number(),
  memoryMb: z.number(),
  diskGb: z.number(),
  bandwidthGb: z.number().nullable(),
  prices: z.array(money),
});

export const plans = z.object({ data: z.array(plan) });

const amounts = z.object({ pods: z.number(), cpuCores: z.number(), memoryMb: z.number(), diskGb: z.number() });
export const quota = z.object({ tenantId: z.string(), source: z.string(), limits: amounts, usage: amounts });

export const currentUsage = z.object({
  yearMonth: z.string(),
  totalCost: money,
  totalUptimeHours: z.string(),
  totalNetworkOutGb: z.string(),
  podBreakdown: z.array(
    z.object({
      podId: z.string(),
      podName: z.string(),
      totalCost: money,
      uptimeHours: z.number(),
      networkOutGb: z.number(),
    }),
  ),
  budget: z.object({ monthlyLimit: money, percentUsed: z.string() }).nullable(),
});

export const usageHistory = z.object({
  dailyUsage: z.array(
    z.object({
      date: z.string(),
      cpuAvgPercent: z.number().nullable(),
      memoryAvgMb: z.number().nullable(),
      diskMaxGb: z.number(),
      networkInTotalGb: z.number(),
      networkOutTotalGb: z.number(),
      uptimeHours: z.number(),
      minutes: z.object({ missing: z.number() }),
      estimatedCost: money,
    }),
  ),
});

export const budget = z.discriminatedUnion("configured", [
  z.object({ configured: z.literal(false) }),
  z.object({
    configured: z.literal(true),
    monthlyLimit: z.string(),
    currency: z.string(),
    alertThreshold1: z.number(),
    alertThreshold2: z.number(),
    alertThreshold3: z.number(),
    hardLimitEnabled: z.boolean(),
    hardLimitAction: z.string(),
    podsStopped: z.boolean(),
    yearMonth: z.string(),
    currentSpend: z.string(),
    percentUsed: z.string(),
    burnRatePerHour: z.string(),
    worstCaseOvershoot: z.string(),
  }),
]);

/** One line of a task's story, as the stream of its events has it. */
export const taskEvent = z.object({ state: z.string(), step: z.string(), percent: z.number(), message: z.string() });

/** What went with a host that was removed. */
export const nodeRemoval = z.object({ backupsGone: z.number() });

export const noBody = z.undefined();
