import { ContainerObservation, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { KnownFinding } from "../../control-plane/src/reconciling/finding.ts";
import type { KnownPod } from "../../control-plane/src/reconciling/known-pod.ts";
import { reconcile, type Comparison, type Rules } from "../../control-plane/src/reconciling/reconcile.ts";

/** The host that is compared. */
export const here = "here";
const graceMs = 600_000;
export const at = (minutes: number): Date => new Date(Date.UTC(2026, 0, 1) + minutes * 60_000);
export const rules = (changes: Partial<Rules> = {}): Rules => ({
  now: at(60),
  graceMs,
  sightingsMin: 2,
  mayAct: true,
  ...changes,
});

export const aPod = (changes: Partial<KnownPod> = {}): KnownPod => ({
  id: "pod",
  vmid: 105,
  status: "active",
  nodeId: here,
  node: "pve1",
  generation: 1n,
  highestGeneration: 1n,
  power: "running",
  cores: 1,
  memoryMb: 512,
  swapMb: 512,
  diskGb: 4,
  hostname: "shop",
  mac: "BC:24:11:00:00:01",
  storage: "local-lvm",
  rateLimitKibPerSecond: 0,
  isSettled: true,
  hasRoomHere: true,
  keptHere: 1n,
  isMissingAtHome: false,
  seenOn: [],
  isSeenAtHome: true,
  wasActivated: true,
  wasAdopted: false,
  isRemovalAsked: false,
  newestBackup: null,
  ...changes,
});

/** The container of `aPod()`. */
export const aContainer = (changes: Partial<ContainerObservation> = {}): ContainerObservation =>
  ContainerObservation.fromPartial({
    vmid: 105,
    podId: "pod",
    generation: 1n,
    power: Power.POWER_RUNNING,
    cores: 1,
    memoryMb: 512,
    swapMb: 512,
    diskGb: 4,
    hostname: "shop",
    mac: "BC:24:11:00:00:01",
    storage: "local-lvm",
    unprivileged: true,
    ...changes,
  });

export const compare = (changes: Partial<Comparison>, how: Partial<Rules> = {}) =>
  reconcile({ nodeId: here, containers: [], pods: [], history: [], archives: [], ...changes }, rules(how));

/** The same comparison again and again, a minute apart, each with what the one before found. */
export function again(changes: Partial<Comparison>, times: number, how: Partial<Rules> = {}) {
  let history: KnownFinding[] = [];
  let last = compare(changes, how);
  for (let nth = 0; nth < times; nth++) {
    last = compare({ ...changes, history }, { ...how, now: at(nth) });
    history = last.seen.map((fact) => ({ ...fact, id: fact.kind, action: null, actedAt: null, attempts: 0 }));
  }
  return last;
}

/** Something that was found before. */
export function known(changes: Partial<KnownFinding>): KnownFinding {
  return {
    id: "finding",
    vmid: 105,
    kind: "stale-copy",
    subject: "pod 1",
    state: "open",
    firstSeenAt: at(0),
    sightings: 1,
    action: null,
    actedAt: null,
    attempts: 0,
    ...changes,
  };
}
