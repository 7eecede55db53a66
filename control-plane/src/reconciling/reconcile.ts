import type { FindingKind } from "@cloudpods/shared/finding-kinds";
import type { ContainerObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { volumesAmong } from "../pods/extra-volumes.ts";
import type { AutomaticDeed, Fact, KnownFinding, StuckArchive } from "./finding.ts";
import { judgeArchives } from "./judge-archives.ts";
import { judgeHome, missing } from "./judge-home.ts";
import { dueDeed, judgeKept, judgeMarked, judgeUnmarked, type Stranger } from "./judge-stranger.ts";
import { isLost, shallExist, type KnownPod } from "./known-pod.ts";

/** One host, as it is and as it should be. */
export interface Comparison {
  readonly nodeId: string;
  /** Of an inventory that its host trusts, under quorum. */
  readonly containers: readonly ContainerObservation[];
  /** Pods placed on the host, and those that marks and ids of its containers name. */
  readonly pods: readonly KnownPod[];
  /** What is not resolved on this host. */
  readonly history: readonly KnownFinding[];
  /** Archives that this host, among others, could not look after. */
  readonly archives: readonly StuckArchive[];
}

/** How patient to be. */
export interface Rules {
  readonly now: Date;
  /** How long something must have been there before it is removed, ms. */
  readonly graceMs: number;
  /** In how many different inventories it must have been seen before it is removed or its lock looked into. */
  readonly sightingsMin: number;
  /** False while a fault of our own is presumed, or orders wait after a restored database: then nothing is done. */
  readonly mayAct: boolean;
}

/** Something to do about a finding, now. */
export interface Deed {
  readonly deed: AutomaticDeed;
  readonly kind: FindingKind;
  readonly vmid: number;
  readonly podId: string;
}

/** A fact with its place in time. */
export interface SeenFact extends Fact {
  /** The finding that it is the same as; undefined for a new one. */
  readonly known: KnownFinding | undefined;
  readonly firstSeenAt: Date;
  readonly sightings: number;
  readonly state: "open" | "dismissed";
}

/** What follows from one inventory. */
export interface Reconciliation {
  readonly seen: readonly SeenFact[];
  /** Findings that are over. */
  readonly gone: readonly KnownFinding[];
  readonly deeds: readonly Deed[];
}

/** After that a person must look. */
const attemptsMax = 6;
const retryFirstMs = 300_000;

/**
 * Compares a host with our books. Decides, does nothing: total, and the same for the same input.
 * About a pod that anybody works on nothing is concluded, in neither direction: a moving container is rightly on two hosts.
 */
export function reconcile(comparison: Comparison, rules: Rules): Reconciliation {
  const judged = judge(comparison);
  const history = new Map(comparison.history.map((finding) => [keyOf(finding), finding]));
  const all = judged.facts.map(({ fact, stranger }) => ({
    fact: place(fact, history.get(keyOf(fact)), rules),
    stranger,
  }));
  const changed = new Set(all.flatMap(({ fact }) => (isChange(fact) ? [fact.vmid] : [])));
  const keys = new Set(all.map(({ fact }) => keyOf(fact)));
  return {
    seen: all.map(({ fact }) => fact),
    gone: comparison.history.filter(
      (finding) =>
        !keys.has(keyOf(finding)) &&
        (!judged.undecided.has(finding.vmid) || judged.over.has(`${keyOf(finding)} ${finding.subject}`)),
    ),
    deeds: rules.mayAct
      ? all.flatMap(({ fact, stranger }) => deedsFor(fact, stranger, rules)).filter((deed) => !undoes(deed, changed))
      : [],
  };
}

/** Somebody made the container other than the pod, and only people say which of the two shall follow. */
function isChange({ kind }: Fact): boolean {
  return kind === "resized" || kind === "drift";
}

/** A repair makes the whole container as the pod is, whatever it is for. */
function undoes({ deed, vmid }: Deed, changed: ReadonlySet<number>): boolean {
  return deed === "repair" && changed.has(vmid);
}

interface Judged {
  readonly facts: readonly { readonly fact: Fact; readonly stranger: Stranger | undefined }[];
  /** VMIDs about which nothing can be said now. */
  readonly undecided: ReadonlySet<number>;
  /** Keys and subjects of what is over on those VMIDs all the same. */
  readonly over: ReadonlySet<string>;
}

function judge({ nodeId, containers, pods, archives }: Comparison): Judged {
  const byId = new Map(pods.map((pod) => [pod.id, pod]));
  const undecided = new Set<number>();
  const over = new Set<string>();
  const facts: { fact: Fact; stranger: Stranger | undefined }[] = [];
  const atHome = new Set<string>();
  for (const seen of containers) {
    if (seen.template) continue;
    const pod = seen.podId === "" ? podOfId(pods, seen.vmid, nodeId) : byId.get(seen.podId);
    const isHome = pod !== undefined && seen.podId === pod.id && isPlaced(pod, nodeId) && pod.vmid === seen.vmid;
    if (isHome) atHome.add(pod.id);
    const isExpected = pod !== undefined && !isPlaced(pod, nodeId) && goesByItself(pod, seen);
    if (pod !== undefined && pod.isSettled && isExpected && seen.podId === pod.id) {
      const kept = judgeKept(seen, pod);
      if (kept.stop) facts.push({ fact: kept.fact, stranger: kept });
      else {
        undecided.add(seen.vmid);
        over.add(`${keyOf(kept.fact)} ${kept.fact.subject}`);
      }
    } else if (pod !== undefined && (!pod.isSettled || isExpected)) undecided.add(seen.vmid);
    else if (!isHome) {
      const stranger = seen.podId === "" ? judgeUnmarked(seen, pod) : judgeMarked(seen, pod);
      if (stranger !== undefined) facts.push({ fact: stranger.fact, stranger });
    } else if (shallExist(pod)) facts.push(...judgeHome(pod, seen).map((fact) => ({ fact, stranger: undefined })));
  }
  for (const pod of pods) {
    if (!isPlaced(pod, nodeId) || atHome.has(pod.id)) continue;
    const inItsPlace = containers.find(({ vmid }) => vmid === pod.vmid);
    if (!pod.isSettled) undecided.add(pod.vmid);
    else if (shallExist(pod)) facts.push({ fact: missing(pod, inItsPlace), stranger: undefined });
  }
  facts.push(...judgeArchives(archives).map((fact) => ({ fact, stranger: undefined })));
  return { facts, undecided, over };
}

function isPlaced(pod: KnownPod, nodeId: string): boolean {
  return pod.nodeId === nodeId && pod.status !== "deleted";
}

/** Room is kept for it until whoever looks after what moves and lost hosts leave has removed it; volumes that no pod has he leaves alone. */
function goesByItself(pod: KnownPod, { partsOfNoPod }: ContainerObservation): boolean {
  const isLeftToPeople = pod.status === "deleted" ? volumesAmong(partsOfNoPod).length > 0 : pod.isMissingAtHome;
  return pod.hasRoomHere && !isLost(pod) && !isLeftToPeople;
}

/** Whose a container without a mark could be: of the pod that has the id now, else of one that had it. */
function podOfId(pods: readonly KnownPod[], vmid: number, nodeId: string): KnownPod | undefined {
  const ofId = pods.filter((pod) => pod.vmid === vmid && (pod.nodeId === null || pod.nodeId === nodeId));
  return ofId.find(({ status }) => status !== "deleted") ?? ofId[0];
}

function place(fact: Fact, known: KnownFinding | undefined, { now }: Rules): SeenFact {
  const isSame = known !== undefined && known.subject === fact.subject;
  return {
    ...fact,
    known,
    firstSeenAt: isSame ? known.firstSeenAt : now,
    sightings: isSame ? known.sightings + 1 : 1,
    state: isSame ? known.state : "open",
  };
}

function deedsFor(fact: SeenFact, stranger: Stranger | undefined, rules: Rules): Deed[] {
  const { podId, state, sightings, firstSeenAt, kind, vmid } = fact;
  if (podId === null || state === "dismissed") return [];
  const isOldEnough = sightings >= rules.sightingsMin && rules.now.getTime() - firstSeenAt.getTime() >= rules.graceMs;
  const deed = stranger === undefined ? dueRepair(fact, rules) : dueDeed(stranger, isOldEnough);
  return deed !== undefined && isDue(fact, deed, rules) ? [{ deed, kind, vmid, podId }] : [];
}

/** A lock that nobody works behind: the host looks whether its holder lives, and breaks it only when it does not. */
function dueRepair({ kind, sightings }: SeenFact, { sightingsMin }: Rules): AutomaticDeed | undefined {
  return kind === "lock" && sightings >= sightingsMin ? "repair" : undefined;
}

function isDue({ known, subject }: SeenFact, deed: AutomaticDeed, { now }: Rules): boolean {
  if (known === undefined || known.subject !== subject || known.action !== deed || known.actedAt === null) return true;
  const waitMs = retryFirstMs * 2 ** (known.attempts - 1);
  return known.attempts < attemptsMax && now.getTime() - known.actedAt.getTime() >= waitMs;
}

/** One current finding of a kind for an id of a host. */
function keyOf({ vmid, kind }: { readonly vmid: number; readonly kind: FindingKind }): string {
  return `${vmid} ${kind}`;
}
