/**
 * What can be wrong between a host and our books.
 * - `missing`: the container of a pod is not on the pod's host. Nothing is made in its place.
 * - `power`: it runs although it should not, or the other way round. The loop that compares powers sets it right.
 * - `resized`: it has other cores, memory, swap or disk than the pod. Shown and never billed.
 * - `drift`: another name, MAC, rate, storage or mark, or parts that no pod has.
 * - `lock`: a lock on a container of ours while no work of ours is under way.
 * - `orphan`: it has our mark, and its pod has no place anywhere.
 * - `stale-copy`: it has our mark, and its pod lives elsewhere. Where the pod's own host has lost it, the copy may become
 *   the pod. What a move has left is one for as long as it runs, and again when it is still there after a day.
 * - `half-created`: nothing but the lock of a create, on the id of a pod of ours.
 * - `unmanaged`: no mark of ours. It can be adopted and is never touched.
 * - `left-archive`: archives that shall go, or be read again, and about which no host could do it.
 */
export const findingKinds = [
  "missing",
  "power",
  "resized",
  "drift",
  "lock",
  "orphan",
  "stale-copy",
  "half-created",
  "unmanaged",
  "left-archive",
] as const;
export type FindingKind = (typeof findingKinds)[number];

/** `dismissed`: an operator has seen it and wants it so; it is open again when it changes. */
export const findingStates = ["open", "dismissed", "resolved"] as const;
export type FindingState = (typeof findingStates)[number];

/** What an operator may decide about a finding; each finding offers some. Adopting is a route of its own. */
export const remedies = ["accept", "repair", "remove", "dismiss", "adopt"] as const;
export type Remedy = (typeof remedies)[number];

/** An archive that was tried to look after so often that people should know. */
export interface StuckArchive {
  readonly podId: string;
  readonly vmid: number;
  readonly volumeId: string;
  readonly madeFor: "move" | "backup";
  readonly errand: "delete" | "verify";
  readonly tries: number;
  /** What the last host said. */
  readonly error: string | null;
}

/** What is done about a finding by itself. */
export type AutomaticDeed = "stop" | "remove" | "repair";

/** Something that is not as it should be, as one inventory shows it. */
export interface Fact {
  readonly vmid: number;
  readonly podId: string | null;
  readonly kind: FindingKind;
  /** What exactly it is: with another subject the finding begins anew. */
  readonly subject: string;
  /** What the host said and what is wanted. */
  readonly evidence: Readonly<Record<string, unknown>>;
  readonly offered: readonly Remedy[];
}

/** A finding that has not been resolved, as it was before this inventory. */
export interface KnownFinding {
  readonly id: string;
  readonly vmid: number;
  readonly kind: FindingKind;
  readonly subject: string;
  readonly state: "open" | "dismissed";
  readonly firstSeenAt: Date;
  /** In how many different inventories. */
  readonly sightings: number;
  /** The last thing that was done about it. */
  readonly action: string | null;
  readonly actedAt: Date | null;
  /** How often in vain. */
  readonly attempts: number;
}
