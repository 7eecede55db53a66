import type { Readable } from "../http/route.ts";
import type { Plan } from "../plans/resolve-plan.ts";
import type { FleetSnapshot, NodeSnapshot } from "../scheduling/fleet-snapshot.ts";
import { countFitting } from "../scheduling/headroom.ts";
import type { Overview } from "./overview-views.ts";
import type { BackupCounts } from "./read-backups.ts";
import type { Orphans, PodCounts } from "./read-containers.ts";
import type { ControlPlaneState } from "./read-control-plane.ts";
import type { ConditionCount, CoreNode } from "./read-core-nodes.ts";
import type { Drains } from "./read-drains.ts";
import type { OpenFindings } from "./read-findings.ts";
import type { HostBehind, MeteringLag, RollUpState, Verification } from "./read-metering.ts";
import type { EndedTasks, Provisioning } from "./read-provisioning.ts";
import type { Queues } from "./read-queues.ts";
import type { SecurityPosture } from "./read-security.ts";

/** What the overview is made from; all of one instant. */
export interface OverviewParts {
  readonly worstNodes: readonly CoreNode[];
  readonly conditions: readonly ConditionCount[];
  readonly snapshot: FleetSnapshot;
  readonly plans: readonly Pick<Plan, "code" | "cores" | "memoryMb" | "diskGb">[];
  readonly lag: MeteringLag;
  readonly behind: readonly HostBehind[];
  readonly rollUp: RollUpState;
  readonly verification: Verification | undefined;
  readonly queues: Queues;
  readonly provisioning: Provisioning;
  readonly pods: PodCounts;
  readonly security: SecurityPosture;
  readonly orphans: Orphans;
  readonly backups: BackupCounts;
  readonly findings: OpenFindings;
  readonly controlPlane: ControlPlaneState;
  readonly drains: Drains;
}

/** Puts the overview together. What nobody has is an empty list: no row is ever made up. */
export function assembleOverview(parts: OverviewParts): Readable<Overview> {
  const { at, ...controlPlane } = parts.controlPlane;
  return {
    at,
    coreNodes: coreNodes(parts.snapshot.nodes, parts.worstNodes),
    conditions: parts.conditions,
    queues: parts.queues,
    provisioning: provisioning(parts.provisioning),
    metering: metering(parts),
    security: parts.security,
    capacity: capacity(parts.snapshot, parts.plans),
    pods: pods(parts.pods),
    orphans: parts.orphans,
    backups: parts.backups,
    findings: parts.findings,
    drains: parts.drains,
    controlPlane,
  };
}

function coreNodes(nodes: readonly NodeSnapshot[], worst: readonly CoreNode[]) {
  return [...Map.groupBy(nodes, ({ role }) => role)].toSorted(byName).map(([role, members]) => ({
    role,
    total: members.length,
    states: [...Map.groupBy(members, ({ state }) => state)]
      .toSorted(byName)
      .map(([state, those]) => ({ state, nodes: those.length })),
    nodes: worst.filter((node) => node.role === role),
  }));
}

function byName([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1;
}

function provisioning({ types, ...rest }: Provisioning) {
  const all = {
    succeeded: sum(types, ({ succeeded }) => succeeded),
    failed: sum(types, ({ failed }) => failed),
    cancelled: sum(types, ({ cancelled }) => cancelled),
  };
  return {
    ...rest,
    ...all,
    successRate: successRate(all),
    types: types.map((ended) => ({ ...ended, successRate: successRate(ended) })),
  };
}

/** Cancelled work is neither a success nor a failure. */
function successRate({ succeeded, failed }: Pick<EndedTasks, "succeeded" | "failed">): number | null {
  return succeeded + failed === 0 ? null : succeeded / (succeeded + failed);
}

function metering({ lag, behind, rollUp, verification }: OverviewParts) {
  const { p50Seconds, p95Seconds, maxSeconds } = lag;
  const isKnown = p50Seconds !== null && p95Seconds !== null && maxSeconds !== null;
  return {
    hosts: lag.hosts,
    neverReported: lag.neverReported,
    lag: isKnown ? { p50Seconds, p95Seconds, maxSeconds } : null,
    behind,
    spools: { total: lag.spoolTotal, max: lag.spoolMax, oldestAt: lag.spoolOldestAt },
    lostBatches: rollUp.lostBatches,
    rolledUpTo: rollUp.rolledUpTo,
    dirtyHours: { waiting: rollUp.dirtyHours, oldest: rollUp.oldestDirtyHour },
    dirtyDays: rollUp.dirtyDays,
    dirtyMonths: rollUp.dirtyMonths,
    lastVerification: verification ?? null,
  };
}

function pods({ total, notActive, onSilentHosts, powerDrift }: PodCounts) {
  const active = total - sum(notActive, (count) => count.pods);
  return {
    byStatus: [...(active === 0 ? [] : [{ status: "active", pods: active }]), ...notActive],
    onSilentHosts,
    powerDrift,
  };
}

function capacity({ nodes, readAt }: FleetSnapshot, plans: OverviewParts["plans"]) {
  const hosts = nodes.filter((node) => node.role === "hypervisor");
  const regions = [...Map.groupBy(hosts, (node) => node.region)].toSorted(byName);
  return regions.map(([region, members]) => {
    const fitting = countFitting(plans, { readAt, nodes: members });
    return {
      region,
      hosts: members.length,
      hostsOpen: members.filter(isOpen).length,
      hostsOverallocated: members.filter(isOverallocated).length,
      ...resources(members),
      headroom: plans.map(({ code }, index) => ({ planCode: code, pods: fitting[index] ?? 0 })),
    };
  });
}

/** It takes orders now. */
function isOpen(node: NodeSnapshot): boolean {
  return node.schedulable && node.state === "online";
}

function isOverallocated(node: NodeSnapshot): boolean {
  return (
    node.cpuAllocated > node.cpuAllocatable ||
    node.memoryAllocatedMb > node.memoryAllocatableMb ||
    node.storages.some((storage) => storage.allocatedGb > storage.allocatableGb)
  );
}

function resources(nodes: readonly NodeSnapshot[]) {
  const open = nodes.filter(isOpen);
  const storagesOf = (those: readonly NodeSnapshot[]) => [
    ...new Map(those.flatMap((node) => node.storages.map((storage) => [storage.id, storage]))).values(),
  ];
  return {
    cpuCores: resource(nodes, open, (node) => [node.cpuAllocatable, node.cpuAllocated]),
    memoryMb: resource(nodes, open, (node) => [node.memoryAllocatableMb, node.memoryAllocatedMb]),
    diskGb: resource(storagesOf(nodes), storagesOf(open), (storage) => [storage.allocatableGb, storage.allocatedGb]),
  };
}

/**
 * What one owner has too little is no other's room: free is added up owner by owner. What is left on a host that takes
 * no orders is nobody's room either.
 */
function resource<Owner>(
  owners: readonly Owner[],
  open: readonly Owner[],
  of: (owner: Owner) => readonly [number, number],
) {
  const figures = owners.map(of);
  return {
    allocatable: sum(figures, ([allocatable]) => allocatable),
    allocated: sum(figures, ([, allocated]) => allocated),
    free: sum(open.map(of), ([allocatable, allocated]) => Math.max(0, allocatable - allocated)),
  };
}

function sum<Item>(items: readonly Item[], of: (item: Item) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}
