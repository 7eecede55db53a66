import { z } from "@hono/zod-openapi";
import { timestamp, uuid } from "../http/fields.ts";
import { nodeStates } from "./node-state.ts";

const labels = z
  .record(z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9_./-]{0,62}$/), z.string().max(255))
  .openapi({ example: { rack: "a3" } });

const promised = z.object({
  total: z.number().int(),
  reserved: z.number().int(),
  overcommit: z.string().openapi({ example: "4.00" }),
  allocatable: z.number().int(),
  allocated: z.number().int(),
  free: z.number().int(),
});

const storage = z.object({
  name: z.string(),
  type: z.string(),
  shared: z.boolean(),
  available: z.boolean(),
  holdsRootDisks: z.boolean(),
  holdsBackups: z.boolean(),
  totalGb: z.number().int(),
  usedGb: z.number().int(),
  allocatableGb: z.number().int(),
  allocatedGb: z.number().int(),
  freeGb: z.number().int(),
});

/** A host in lists. */
export const nodeView = z
  .object({
    id: uuid,
    name: z.string(),
    pveName: z.string().nullable(),
    cluster: z.string().nullable(),
    role: z.string(),
    region: z.string(),
    labels,
    state: z.enum(nodeStates),
    stateSince: timestamp,
    schedulable: z.boolean(),
    cordonReason: z.string().nullable(),
    cordonedAt: timestamp.nullable(),
    cordonedUntil: timestamp.nullable().openapi({ description: "When the host opens for new pods by itself." }),
    cordonedBy: z.string().nullable(),
    cordonedByEmail: z.string().nullable().openapi({ description: "Null: a part of the control plane." }),
    maintenanceNote: z.string().nullable(),
    defaultStorage: z.string().nullable(),
    backupStorage: z
      .string()
      .nullable()
      .openapi({ description: "Where backups of its pods go; null: the emptiest storage that several hosts see." }),
    bridge: z.string(),
    pool: z.string().nullable(),
    templateVmid: z.number().int().nullable(),
    templateArchive: z.string().nullable(),
    version: z.number().int(),
    createdAt: timestamp,
    removedAt: timestamp.nullable(),
    sessionConnected: z.boolean(),
    sessionSeenAt: timestamp.nullable(),
    lastHeartbeatAt: timestamp.nullable(),
    inventoryAt: timestamp.nullable(),
    agentVersion: z.string().nullable(),
    pveVersion: z.string().nullable(),
    capabilities: z.array(z.string()).readonly(),
    quorate: z.boolean().nullable(),
    clockSkewMs: z.number().nullable(),
    cpuBusyBasisPoints: z.number().int().nullable(),
    load1Centi: z.number().int().nullable(),
    memoryAvailableMb: z.number().int().nullable(),
    spoolDepth: z.number().nullable(),
    spoolOldestAt: timestamp.nullable(),
    runningContainers: z.number().int().nullable(),
    certificateSerial: z.string().nullable(),
    certificateExpiresAt: timestamp.nullable(),
    cpu: promised.openapi({ description: "Cores." }),
    memoryMb: promised.openapi({ description: "MiB." }),
    conditions: z.array(z.object({ kind: z.string(), message: z.string(), since: timestamp })).readonly(),
    storages: z.array(storage).readonly(),
    podCount: z.number().int(),
  })
  .openapi("Node");

/** A host by itself. */
export const nodeDetail = nodeView
  .extend({
    pods: z.array(
      z.object({
        id: uuid,
        vmid: z.number().int(),
        name: z.string(),
        tenantId: uuid,
        status: z.string(),
        observedPower: z.string(),
      }),
    ),
    templates: z.array(z.string()),
  })
  .openapi("NodeDetail");

/** What went with a host that was removed. */
export const removalView = z
  .object({
    backupsGone: z.number().int().openapi({
      description:
        "Backups that no other host sees: nothing can be restored from them any more, and their tenants are told.",
    }),
  })
  .openapi("NodeRemoval");

/** Settings that may be changed; absent members stay, null empties. */
export const nodeChanges = z
  .strictObject({
    labels: labels.optional(),
    cpuReserved: z.number().int().min(0).max(4_096).optional(),
    cpuOvercommit: z.number().min(0.1).max(100).multipleOf(0.01).optional(),
    memoryReservedMb: z.number().int().min(0).max(67_108_864).optional(),
    memoryOvercommit: z.number().min(0.1).max(10).multipleOf(0.01).optional(),
    defaultStorage: z.string().min(1).max(100).nullable().optional(),
    backupStorage: z.string().min(1).max(100).nullable().optional(),
    bridge: z
      .string()
      .regex(/^[a-zA-Z][a-zA-Z0-9_.-]{0,14}$/)
      .optional(),
    pool: z
      .string()
      .regex(/^[a-zA-Z0-9._-]{1,100}$/)
      .nullable()
      .optional(),
    templateVmid: z.number().int().min(100).max(999_999_999).nullable().optional(),
    templateArchive: z
      .string()
      .regex(/^[a-zA-Z0-9._-]+:[a-zA-Z0-9._/-]+$/)
      .max(255)
      .nullable()
      .optional(),
    maintenanceNote: z.string().max(2_000).nullable().optional(),
  })
  .refine((changes) => Object.keys(changes).length > 0, "nothing to change");

/** A line of a host's history. */
export const nodeEvent = z.object({
  id: uuid,
  at: timestamp,
  kind: z.string(),
  message: z.string(),
  detail: z.record(z.string(), z.unknown()),
});

/** A measurement of a host. */
export const nodeSample = z.object({
  at: timestamp,
  cpuBusyBasisPoints: z.number().int(),
  load1Centi: z.number().int(),
  memoryTotalMb: z.number().int(),
  memoryAvailableMb: z.number().int(),
});

/** A container that is nobody's. */
export const unmanagedContainer = z.object({
  nodeId: uuid,
  nodeName: z.string(),
  vmid: z.number().int(),
  podId: uuid.nullable(),
  observation: z.record(z.string(), z.unknown()),
  firstSeenAt: timestamp,
  lastSeenAt: timestamp,
  sightings: z.number().int(),
});
