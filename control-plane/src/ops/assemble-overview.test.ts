import { describe, expect, test } from "vitest";
import { fleetOf, nodeWith } from "../../../test/support/placement-arbitraries.ts";
import { assembleOverview, type OverviewParts } from "./assemble-overview.ts";

const at = new Date("2026-03-01T12:00:00Z");

/** A platform on which nothing has ever happened. */
const nothing: OverviewParts = {
  worstNodes: [],
  conditions: [],
  snapshot: { readAt: at, nodes: [] },
  plans: [],
  lag: {
    hosts: 0,
    neverReported: 0,
    p50Seconds: null,
    p95Seconds: null,
    maxSeconds: null,
    spoolTotal: 0,
    spoolMax: 0,
    spoolOldestAt: null,
  },
  behind: [],
  rollUp: { rolledUpTo: null, dirtyHours: 0, oldestDirtyHour: null, dirtyDays: 0, dirtyMonths: 0, lostBatches: 0 },
  verification: undefined,
  queues: { tasks: [], commands: [], notifications: [], deadLetters: [] },
  provisioning: { since: at, ordersWithoutPlace: 0, types: [], recentFailures: [] },
  pods: { total: 0, notActive: [], onSilentHosts: 0, powerDrift: 0 },
  security: {
    users: { active: 0, withoutVerifiedEmail: 0, administrators: 0, operators: 0, liveSessions: 0 },
    apiTokens: { live: 0, withoutExpiry: 0, unusedFor90Days: 0 },
    signIns: { failedInLastHour: 0, blockedAccounts: 0, blockedAddresses: 0 },
    certificates: { authorityExpiresAt: null, expiring: [], revokedNodes: [] },
    audit: {
      unsealedRows: 0,
      sealLagSeconds: 0,
      lastSealAt: null,
      lastVerifiedAt: null,
      wholeVerifiedAt: null,
      intact: null,
      fault: null,
    },
  },
  orphans: { unmanaged: 0, misplaced: 0, containers: [] },
  backups: { running: 0, succeeded: 0, failed: 0, lastSuccessAt: null, due: 0, oldestDueAt: null, damaged: 0 },
  drains: { running: [], incomplete: [] },
  findings: { byKind: [], dismissed: 0, held: false, newest: [] },
  controlPlane: { at, replicas: [], fleetEpoch: 1n, holdsOrders: false, database: {} },
};

const ended = { cancelled: 0, p50Seconds: 4, p95Seconds: 9 };

describe("assembleOverview", () => {
  test("makes up nothing where there is nothing", () => {
    const overview = assembleOverview(nothing);
    expect(overview).toMatchObject({ at, coreNodes: [], capacity: [], conditions: [], metering: { lag: null } });
    expect(overview.provisioning).toMatchObject({ successRate: null, types: [], succeeded: 0 });
  });

  test("adds up work of all types; what was cancelled is neither success nor failure", () => {
    const { provisioning } = assembleOverview({
      ...nothing,
      provisioning: {
        ...nothing.provisioning,
        types: [
          { ...ended, type: "create", succeeded: 8, failed: 1, cancelled: 5 },
          { ...ended, type: "resize", succeeded: 0, failed: 1 },
          { ...ended, type: "stop", succeeded: 0, failed: 0, cancelled: 1 },
        ],
      },
    });
    expect(provisioning).toMatchObject({ succeeded: 8, failed: 2, cancelled: 6, successRate: 0.8 });
    expect(provisioning.types.map(({ successRate }) => successRate)).toEqual([8 / 9, 0, null]);
  });

  test("counts as active what has no other status", () => {
    const pods = { ...nothing.pods, total: 50, notActive: [{ status: "suspended", pods: 8 }] };
    expect(assembleOverview({ ...nothing, pods }).pods.byStatus).toEqual([
      { status: "active", pods: 42 },
      { status: "suspended", pods: 8 },
    ]);
    expect(assembleOverview({ ...nothing, pods: { ...pods, total: 8 } }).pods.byStatus).toEqual(pods.notActive);
  });

  test("groups hosts by role and keeps their order", () => {
    const node = {
      region: "eu",
      stateSince: at,
      schedulable: true,
      lastHeartbeatAt: at,
      cpuBusyBasisPoints: null,
      memoryAvailableMb: null,
      agentVersion: null,
      conditions: [],
    };
    const { coreNodes } = assembleOverview({
      ...nothing,
      snapshot: fleetOf(
        nodeWith({ id: "3" }),
        nodeWith({ id: "1", role: "db" }),
        nodeWith({ id: "2", state: "offline" }),
        nodeWith({ id: "4" }),
      ),
      worstNodes: [
        { ...node, id: "1", name: "db-1", role: "db", state: "online" },
        { ...node, id: "2", name: "pve-2", role: "hypervisor", state: "offline" },
        { ...node, id: "3", name: "pve-1", role: "hypervisor", state: "online" },
      ],
    });
    expect(coreNodes.map(({ role, nodes }) => [role, nodes.map(({ name }) => name)])).toEqual([
      ["db", ["db-1"]],
      ["hypervisor", ["pve-2", "pve-1"]],
    ]);
    expect(coreNodes[1]).toMatchObject({
      total: 3,
      states: [
        { state: "offline", nodes: 1 },
        { state: "online", nodes: 2 },
      ],
    });
  });

  test("capacity: what does not take orders has no room, and keeps what it promised", () => {
    const ceph = { id: "ceph", name: "ceph", shared: true, allocatableGb: 100, allocatedGb: 40 };
    const own = { id: "own", name: "local", shared: false, allocatableGb: 10, allocatedGb: 3 };
    const cores = { cpuAllocatable: 4, cpuAllocated: 1 };
    const snapshot = fleetOf(
      nodeWith({ id: "a", storages: [ceph], ...cores }),
      nodeWith({ id: "b", storages: [ceph, own], state: "lost", ...cores }),
      nodeWith({ id: "c", storages: [ceph], schedulable: false, ...cores }),
    );
    const [region] = assembleOverview({ ...nothing, snapshot }).capacity;
    expect(region).toMatchObject({
      hosts: 3,
      hostsOpen: 1,
      cpuCores: { allocatable: 12, allocated: 3, free: 3 },
      diskGb: { allocatable: 110, allocated: 43, free: 60 },
    });
  });

  test("capacity: one region each, a shared storage once, no room lent from one host to another", () => {
    const ceph = { id: "ceph", name: "ceph", shared: true, allocatableGb: 100, allocatedGb: 40 };
    const own = { id: "own", name: "local", shared: false, allocatableGb: 10, allocatedGb: 30 };
    const snapshot = fleetOf(
      nodeWith({ id: "a", region: "eu", storages: [ceph, own], cpuAllocatable: 4, cpuAllocated: 6 }),
      nodeWith({ id: "b", region: "eu", storages: [ceph], cpuAllocatable: 8, cpuAllocated: 2 }),
      nodeWith({ id: "c", region: "us", state: "offline", storages: [] }),
      nodeWith({ id: "d", region: "eu", role: "mail" }),
    );
    const plans = [{ code: "TWO", cores: 2, memoryMb: 16, diskGb: 1 }];
    const [eu, us] = assembleOverview({ ...nothing, snapshot, plans }).capacity;
    expect(eu).toMatchObject({
      region: "eu",
      hosts: 2,
      hostsOpen: 2,
      hostsOverallocated: 1,
      cpuCores: { allocatable: 12, allocated: 8, free: 6 },
      diskGb: { allocatable: 110, allocated: 70, free: 60 },
      headroom: [{ planCode: "TWO", pods: 3 }],
    });
    expect(us).toMatchObject({ region: "us", hosts: 1, hostsOpen: 0, headroom: [{ planCode: "TWO", pods: 0 }] });
  });
});
