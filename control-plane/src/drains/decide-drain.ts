import {
  drainPodHasLeft,
  drainPodIsSettled,
  type DrainEvent,
  type DrainPodState,
} from "@cloudpods/shared/drain-lifecycle";
import type { MoveState } from "../moves/move.ts";
import type { Blocker } from "../moves/plan-moves.ts";

/** What a decision about one pod rests on. */
export interface DrainPodFacts {
  readonly podId: string;
  readonly state: DrainPodState;
  /** Other work on it is under way: it waits its turn. */
  readonly isBusy: boolean;
  /** It is not the host's any more, and not by a move of this drain. */
  readonly isGone: boolean;
  /** Of the move that is under way or ended last. */
  readonly move: MoveState | undefined;
  /** It tells of a failure, also where the pod has changed hands before that. */
  readonly hasMoveFailed: boolean;
  /**
   * The host of its claimed place: `good` takes pods at this moment, `shaken` was not heard on one of its two channels for a
   * moment and may be itself again in the next, `bad` takes none.
   */
  readonly target: "good" | "shaken" | "bad";
  /** It can get to its claimed place also where its guest does not shut down: by an archive, or with a disk that both hosts see. */
  readonly canRestore: boolean;
  /** Its move waits for a turn of its host: nothing was done to the pod yet. */
  readonly isWaiting: boolean;
  /** Its move may still be called back: the pod is its host's, and nobody has asked for that yet. */
  readonly canBeRecalled: boolean;
  /** The move that ended last was ended by the drain itself. */
  readonly wasAborted: boolean;
  /** Hosts on which a move of it has failed. */
  readonly failedTargets: number;
  /** Code of what stands in its way. */
  readonly reason: string | undefined;
  /** Blocked, by something that may pass: it had a place before, or its host is gone. */
  readonly canWait: boolean;
  /** And it is time to look again. */
  readonly isDue: boolean;
  /** Blocked, because nothing is left that it could be brought back from. */
  readonly isHopeless: boolean;
}

/** What a decision about a drain rests on. */
export interface DrainFacts {
  readonly kind: "drain" | "evacuation";
  readonly state: "planning" | "moving";
  readonly onNoCapacity: "fail" | "partial";
  readonly onDeadline: "leave" | "stop-and-restore";
  readonly onNoBackup: "keep" | "mark-lost";
  readonly maxParallel: number;
  readonly deadlineMs: number;
  readonly isCancelled: boolean;
  /** Of an evacuation: something was heard of the host since, so it is not cut off and keeps the pods that it still has. */
  readonly isHostBack: boolean;
  /** Places on the host that pods still hold which have left it. */
  readonly claimsLeft: number;
  /** In the order in which they are to move. */
  readonly pods: readonly DrainPodFacts[];
}

/** One thing to do. */
export type DrainAction =
  /** Note what has become of a pod; `why`: unless its move itself tells. */
  | { readonly kind: "settle"; readonly podId: string; readonly state: DrainPodState; readonly why?: Blocker }
  /** Look for a place and claim it; without one the pod is blocked. */
  | { readonly kind: "claim"; readonly podId: string }
  /** Give the claimed place back. */
  | { readonly kind: "release"; readonly podId: string; readonly state: "pending" | "left"; readonly why?: Blocker }
  /** Begin the move; `byArchive`: also where the guest does not shut down by itself. */
  | { readonly kind: "start"; readonly podId: string; readonly byArchive: boolean }
  /** End a move that waits and has done nothing to the pod yet, or whose pod stays its host's. */
  | { readonly kind: "abort"; readonly podId: string }
  /** Mark a pod as lost. */
  | { readonly kind: "give-up"; readonly podId: string }
  /** The drain itself goes on or ends. */
  | { readonly kind: "advance"; readonly event: DrainEvent; readonly outcome: string };

/** After so many hosts on which it failed a pod is left alone. */
const failedTargetsMax = 3;

const returned: Blocker = { code: "NODE_RETURNED", message: "Its host is back and keeps it." };
const late: Blocker = { code: "DEADLINE_PASSED", message: "Time was up before it could move." };
const cancelled: Blocker = { code: "CANCELLED", message: "The drain was cancelled before it could move." };
const notAll: Blocker = {
  code: "NO_PLACE_FOR_ALL",
  message: "Another pod has no place elsewhere, and nothing moves unless all have one.",
};

/**
 * What to do next about a drain. Everything that ended is noted first; the decision about the rest is the next pass's, on
 * fresh facts. No pod moves without a claimed place on a host that takes pods at that moment, and never more than
 * `maxParallel` at once.
 */
export function decideDrain(facts: DrainFacts, nowMs: number): DrainAction[] {
  const settled = facts.pods.flatMap((pod) => settle(pod, facts, nowMs));
  if (settled.length > 0) return settled;
  if (facts.isHostBack) return endForHost(facts);
  const isLate = nowMs >= facts.deadlineMs;
  const mayGoOn = !facts.isCancelled && (!isLate || facts.onDeadline === "stop-and-restore");
  const why = facts.isCancelled ? cancelled : late;
  const withdrawn = facts.pods.flatMap((pod) => withdraw(pod, { mayGoOn, isLate, why }));
  if (withdrawn.length > 0) return withdrawn;
  if (facts.isCancelled)
    return endUnlessMoving(facts, "cancelled", "Cancelled; what had begun was carried to its end.");
  const waiting = facts.state === "moving" && !isLate ? facts.pods.filter(isInTheWayForNow) : [];
  const due = waiting.filter(({ isDue }) => isDue);
  if (due.length > 0) return due.map(({ podId }) => ({ kind: "settle", podId, state: "pending" }));
  const ready = facts.pods.filter(({ state, isBusy }) => state === "pending" && !isBusy);
  if (facts.kind === "drain" && ready.length > 0 && !isLate)
    return ready.map(({ podId }) => ({ kind: "claim", podId }));
  if (facts.state === "planning") {
    const decision = judgePlan(facts, isLate);
    if (decision !== undefined) return decision;
  }
  const started = startNext(facts, ready, isLate);
  if (started.length > 0) return started;
  const hopeless = facts.pods.filter(({ isHopeless, isGone }) => isHopeless && !isGone);
  if (facts.onNoBackup === "mark-lost" && hopeless.length > 0) return giveUp(hopeless, facts);
  return waiting.length > 0 ? [] : end(facts, isLate);
}

/**
 * After everything that can be brought back: until then a member of the host's cluster may say that the host is there, and
 * its pods with it.
 */
function giveUp(hopeless: readonly DrainPodFacts[], facts: DrainFacts): DrainAction[] {
  if (facts.pods.some(({ state }) => state === "pending" || state === "moving")) return [];
  return hopeless.filter(({ isBusy }) => !isBusy).map(({ podId }) => ({ kind: "give-up", podId }));
}

/** A host that has no room, or is away for a moment, is none for ever: until time is up it is asked again. */
function isInTheWayForNow({ state, canWait }: DrainPodFacts): boolean {
  return state === "blocked" && canWait;
}

/** What has ended by itself. */
function settle(pod: DrainPodFacts, facts: DrainFacts, nowMs: number): DrainAction[] {
  const { podId, state, move } = pod;
  const settled = (to: DrainPodState): DrainAction[] => [{ kind: "settle", podId, state: to }];
  if (state === "moving") {
    // Its host is gone: what has changed hands and is not there is nowhere.
    if (move === "moved") return settled(pod.hasMoveFailed && facts.kind === "evacuation" ? "failed" : "moved");
    if (move === "reserved" || move === "moving") return [];
    if (pod.isGone) return settled("gone");
    if (pod.wasAborted || facts.isHostBack)
      return [{ kind: "settle", podId, state: "left", ...(facts.isHostBack ? { why: returned } : {}) }];
    const isLastTry = pod.failedTargets + 1 >= failedTargetsMax || facts.isCancelled || nowMs >= facts.deadlineMs;
    return settled(isLastTry ? "failed" : "pending");
  }
  if (!pod.isGone || drainPodIsSettled[state]) return [];
  return state === "claimed" ? [{ kind: "release", podId, state: "left" }, ...settled("gone")] : settled("gone");
}

/** Whoever vouched that the host is cut off was wrong, or is no more right: it keeps every pod that has not changed hands. */
function endForHost(facts: DrainFacts): DrainAction[] {
  const kept = facts.pods.flatMap(({ podId, state, canBeRecalled }): DrainAction[] => {
    if (state === "moving") return canBeRecalled ? [{ kind: "abort", podId }] : [];
    return drainPodIsSettled[state] ? [] : [{ kind: "settle", podId, state: "left", why: returned }];
  });
  if (kept.length > 0) return kept;
  const moved = facts.pods.filter(({ state }) => state === "moved").length;
  const before = moved === 0 ? "" : `; ${count(moved, "pod had", "pods had")} changed hands before`;
  return endUnlessMoving(facts, "cancelled", `The host is back and keeps its pods${before}.`);
}

/** What may not move any more, or not there. */
function withdraw(
  pod: DrainPodFacts,
  { mayGoOn, isLate, why }: { readonly mayGoOn: boolean; readonly isLate: boolean; readonly why: Blocker },
): DrainAction[] {
  const { podId, state } = pod;
  if (state === "moving") return pod.isWaiting && !mayGoOn ? [{ kind: "abort", podId }] : [];
  if (state === "claimed") {
    if (!mayGoOn || (isLate && !(pod.target === "good" && pod.canRestore)))
      return [{ kind: "release", podId, state: "left", why }];
    // Nothing is lost with a host that is shaken: its places are kept for when it is itself again, and nobody moves there before.
    return pod.target === "bad" ? [{ kind: "release", podId, state: "pending" }] : [];
  }
  // Time is up for whoever has no place yet.
  return state === "pending" && (!mayGoOn || isLate) ? [{ kind: "settle", podId, state: "left", why }] : [];
}

/** Whether the moving may begin; undefined: it may, or there is nothing to decide. */
function judgePlan(facts: DrainFacts, isLate: boolean): DrainAction[] | undefined {
  if (facts.kind === "evacuation") return [{ kind: "advance", event: "all-placed", outcome: "" }];
  if (facts.onNoCapacity === "partial") return [{ kind: "advance", event: "all-placed", outcome: "" }];
  // When time is up those that were never given a place have none.
  const without = facts.pods.filter(
    ({ state, move }) => state === "blocked" || (isLate && state === "left" && move === undefined),
  );
  if (without.length > 0) {
    const left = facts.pods.flatMap(({ podId, state }): DrainAction[] => {
      if (state === "claimed") return [{ kind: "release", podId, state: "left", why: notAll }];
      return state === "pending" ? [{ kind: "settle", podId, state: "left", why: notAll }] : [];
    });
    if (left.length > 0) return left;
    if (isLate) return undefined;
    const outcome = `Nothing was moved: ${count(without.length, "pod has", "pods have")} no place elsewhere${reasonsOf(without)}.`;
    return [{ kind: "advance", event: "gave-up", outcome }];
  }
  // Whoever is busy has no place yet; the others wait with theirs.
  if (facts.pods.some(({ state }) => state === "pending")) return [];
  return [{ kind: "advance", event: "all-placed", outcome: "" }];
}

function startNext(facts: DrainFacts, ready: readonly DrainPodFacts[], isLate: boolean): DrainAction[] {
  const lanes = facts.maxParallel - facts.pods.filter(({ state }) => state === "moving").length;
  if (lanes <= 0) return [];
  const next =
    facts.kind === "evacuation"
      ? ready
      : facts.pods.filter(({ state, isBusy, target }) => state === "claimed" && !isBusy && target === "good");
  return next.slice(0, lanes).map(({ podId }) => ({ kind: "start", podId, byArchive: isLate }));
}

function end(facts: DrainFacts, isLate: boolean): DrainAction[] {
  if (!facts.pods.every(({ state }) => drainPodIsSettled[state])) return [];
  const staying = facts.pods.filter(({ state }) => !drainPodHasLeft[state]);
  const lost = facts.pods.filter(({ state }) => state === "lost").length;
  const andLost = lost === 0 ? "" : `; ${count(lost, "pod is lost", "pods are lost")}`;
  if (staying.length > 0) {
    const isGone = facts.kind === "evacuation";
    const what = isGone ? count(staying.length, "pod was", "pods were") : count(staying.length, "pod is", "pods are");
    const outcome = `${what} ${isGone ? "not brought back" : "still on the host"}${reasonsOf(staying)}${andLost}.`;
    return [{ kind: "advance", event: "gave-up", outcome }];
  }
  // An evacuated host says nothing any more: what it holds is cleared when it is back or removed.
  if (facts.kind === "evacuation" || facts.claimsLeft === 0) {
    return [{ kind: "advance", event: "emptied", outcome: `No pod is left on the host${andLost}.` }];
  }
  if (!isLate) return [];
  const outcome = `All pods have moved; ${count(facts.claimsLeft, "copy is", "copies are")} still to be removed from the host.`;
  return [{ kind: "advance", event: "gave-up", outcome }];
}

function reasonsOf(pods: readonly DrainPodFacts[]): string {
  const reasons = Map.groupBy(
    pods.filter(({ reason }) => reason !== undefined),
    ({ reason }) => reason,
  );
  const counted = [...reasons].map(([reason, those]) => `${those.length} ${reason}`);
  return counted.length === 0 ? "" : `: ${counted.toSorted((a, b) => (a < b ? -1 : 1)).join(", ")}`;
}

function endUnlessMoving(facts: DrainFacts, event: DrainEvent, outcome: string): DrainAction[] {
  return facts.pods.some(({ state }) => state === "moving") ? [] : [{ kind: "advance", event, outcome }];
}

function count(number: number, one: string, many: string): string {
  return `${number} ${number === 1 ? one : many}`;
}
