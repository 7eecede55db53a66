import { Power, type ContainerObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { volumesAmong } from "../pods/extra-volumes.ts";
import type { AutomaticDeed, Fact, Remedy } from "./finding.ts";
import { isLost, type KnownPod } from "./known-pod.ts";

/** A container that is not its pod's own, and what may be done about it without asking anybody. */
export interface Stranger {
  readonly fact: Fact;
  /** At once. */
  readonly stop: boolean;
  /** After it was seen long and often enough. */
  readonly remove: boolean;
}

/** A container without a mark. The only thing that anything is done about is a half of our own making. */
export function judgeUnmarked(seen: ContainerObservation, ofItsId: KnownPod | undefined): Stranger | undefined {
  const { vmid } = seen;
  if (seen.lock !== "create") {
    const { cores, memoryMb, diskGb, hostname, ip, storage, lock } = seen;
    const evidence = { power: powerOf(seen), cores, memoryMb, diskGb, hostname, ip, storage, lock };
    const fact: Fact = {
      vmid,
      podId: null,
      kind: "unmanaged",
      subject: seen.mac,
      evidence,
      offered: ["adopt", "dismiss"],
    };
    return { fact, stop: false, remove: false };
  }
  // Somebody's own create is under way.
  if (ofItsId === undefined || (ofItsId.status !== "failed" && ofItsId.status !== "deleted")) return undefined;
  const fact: Fact = {
    vmid,
    podId: ofItsId.id,
    kind: "half-created",
    subject: ofItsId.id,
    evidence: { lock: seen.lock, pod: ofItsId.status },
    offered: ["remove", "dismiss"],
  };
  // The host looks into its own records whether it is ours, and refuses where it is not.
  return { fact, stop: false, remove: true };
}

/**
 * A container with the mark of a pod that is not here under this id; `pod` is undefined when nobody knows it, as after
 * the loss of our last hours. What runs beside its pod, or of a pod that was deleted, is stopped. Removed without asking is
 * only what is provably of no more use to anybody:
 * - of a pod that was deleted or that its owner never got (an adoption that failed has left somebody's own container);
 * - a copy older than the pod's place, while the pod's own host shows the pod.
 * What has another id than its pod was made by hand, what carries the generation in force was moved by hand, and a mark
 * above all that we ever told is of a time that our books have lost. Volumes that no pod has are data that nobody moved or
 * backed up with the pod: a container with any goes on an operator's word only, and with the volumes that the finding shows. A copy that a move in vain has left where a place is
 * still kept for it becomes the pod, if an operator says so, once the pod's own host has lost it; what a pod was that was given
 * up with its host becomes that again.
 */
export function judgeMarked(seen: ContainerObservation, pod: KnownPod | undefined): Stranger {
  if (pod === undefined) return { fact: marked("orphan", seen, { pod: "unknown" }), stop: false, remove: false };
  const hasMore = volumesAmong(seen.partsOfNoPod).length > 0;
  const livesElsewhere = pod.nodeId !== null && pod.status !== "deleted";
  const isOurDoing = seen.vmid === pod.vmid && seen.generation <= pod.highestGeneration;
  const evidence = {
    pod: pod.status,
    node: pod.node,
    inForce: String(pod.generation),
    ofTheSameId: seen.vmid === pod.vmid,
    ...(isSomebodysOwn(pod) ? { adoption: "in vain" } : {}),
    ...(isLost(pod) ? { givenUp: "with its host" } : {}),
  };
  // A host thinks in pods: told to remove one id of a pod it would forget the other.
  const offered: readonly Remedy[] = seen.vmid === pod.vmid ? ["remove", "dismiss"] : ["dismiss"];
  if (isSomebodysOwn(pod))
    return { fact: marked("orphan", seen, evidence, offeredOf(seen, pod)), stop: false, remove: false };
  if (!livesElsewhere) {
    const isOver = pod.status === "deleted" || !pod.wasActivated;
    return {
      fact: marked("orphan", seen, evidence, isAsGivenUp(seen, pod) ? ["accept", ...offered] : offered),
      stop: isOurDoing && isOver && pod.status === "deleted" && seen.power === Power.POWER_RUNNING,
      remove: isOurDoing && isOver && !hasMore,
    };
  }
  const isLeftBehind = isOurDoing && seen.generation !== pod.generation && pod.isSeenAtHome;
  const isOnlyOne = seen.generation === pod.generation || !pod.isSeenAtHome;
  // A place of an older generation is the one that the pod has left, which nobody can give back to it.
  const isKeptForIt = pod.keptHere !== null && pod.keptHere > pod.generation && seen.generation <= pod.keptHere;
  const mayBecomeIt = isOurDoing && pod.isMissingAtHome && isKeptForIt;
  const remedies: readonly Remedy[] = mayBecomeIt ? ["accept", "dismiss"] : isOnlyOne ? ["dismiss"] : offered;
  const where = { ...evidence, seenAtHome: pod.isSeenAtHome, missingAtHome: pod.isMissingAtHome };
  return {
    fact: marked("stale-copy", seen, where, remedies),
    stop: isLeftBehind && seen.generation < pod.generation && seen.power === Power.POWER_RUNNING,
    remove: isLeftBehind && !hasMore,
  };
}

/**
 * A copy that is rightly here for a while: a move has left it, its room is kept, and whoever looks after left copies
 * removes it in its time. Until then it must not run beside its pod. What is stopped is only what is known not to be the
 * pod: the pod's own host shows the pod, or its owner has given it up. It carries a subject of its own, so that being there
 * longer than it should is another finding, which begins anew.
 */
export function judgeKept(seen: ContainerObservation, pod: KnownPod): Stranger {
  const evidence = { pod: pod.status, node: pod.node, inForce: String(pod.generation), seenAtHome: pod.isSeenAtHome };
  const fact = marked("stale-copy", seen, evidence, ["dismiss"]);
  const isOurDoing = seen.vmid === pod.vmid && seen.generation <= pod.highestGeneration;
  const isOver =
    pod.status === "deleted" ? !isSomebodysOwn(pod) : pod.isSeenAtHome && seen.generation !== pod.generation;
  return {
    fact: { ...fact, subject: `${fact.subject} running` },
    stop: isOurDoing && isOver && seen.power === Power.POWER_RUNNING,
    remove: false,
  };
}

/** Never removed: it is somebody's. What the books have ended with can begin anew. */
function offeredOf(seen: ContainerObservation, { status, vmid }: KnownPod): readonly Remedy[] {
  return status === "deleted" && seen.vmid === vmid ? ["adopt", "dismiss"] : ["dismiss"];
}

/** A lost pod whose container is what it was when it was given up; what is of an older place lacks what was written since. */
function isAsGivenUp({ vmid, generation }: ContainerObservation, pod: KnownPod): boolean {
  return isLost(pod) && !pod.isRemovalAsked && vmid === pod.vmid && generation === pod.generation;
}

/** An adoption that failed: the container is whose it was before. */
function isSomebodysOwn({ wasAdopted, wasActivated }: KnownPod): boolean {
  return wasAdopted && !wasActivated;
}

/** What is done now about a stranger, given how long it is known. */
export function dueDeed(stranger: Stranger, isOldEnough: boolean): AutomaticDeed | undefined {
  if (stranger.remove && isOldEnough) return "remove";
  return stranger.stop ? "stop" : undefined;
}

function marked(
  kind: "orphan" | "stale-copy",
  seen: ContainerObservation,
  evidence: Readonly<Record<string, unknown>>,
  offered: readonly Remedy[] = ["remove", "dismiss"],
): Fact {
  const { vmid, podId, generation, hostname, lock } = seen;
  const volumes = volumesAmong(seen.partsOfNoPod);
  return {
    vmid,
    podId,
    kind,
    // With other volumes it is another decision.
    subject: [podId, generation, ...volumes].join(" "),
    evidence: { ...evidence, generation: String(generation), power: powerOf(seen), hostname, lock, volumes },
    offered,
  };
}

function powerOf(seen: ContainerObservation): string {
  return seen.power === Power.POWER_RUNNING ? "running" : "stopped";
}
