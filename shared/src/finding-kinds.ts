/**
 * What can be wrong between a host and our books.
 * - `missing`: the container of a pod is not on the pod's host. Nothing is made in its place.
 * - `power`: it runs although it should not, or the other way round. The loop that compares powers sets it right.
 * - `resized`: it has other cores, memory, swap or disk than the pod. Shown and never billed.
 * - `drift`: another name, MAC, rate, storage or mark, or parts that no pod has.
 * - `lock`: a lock on a container of ours while no work of ours is under way.
 * - `orphan`: it has our mark, and its pod has no place anywhere. A pod that was given up with its host may become that host's
 *   again.
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
