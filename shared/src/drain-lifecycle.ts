/** How far the emptying of a host is. An evacuation of a host that is gone has the same states. */
export const drainStates = ["planning", "moving", "drained", "incomplete", "cancelled"] as const;
export type DrainState = (typeof drainStates)[number];

/** What can happen to a drain. */
export const drainEvents = ["all-placed", "emptied", "gave-up", "cancelled"] as const;
export type DrainEvent = (typeof drainEvents)[number];

/**
 * Every state with every event; `undefined` means ignored.
 *
 * ```
 * planning ─all-placed→ moving ─emptied→ drained
 * planning, moving ─gave-up→ incomplete        planning, moving ─cancelled→ cancelled
 * ```
 * In `planning` places are claimed and nothing moves yet. Whoever leaves a state is the loop that drives drains.
 */
export const drainTransitions = {
  planning: { "all-placed": "moving", emptied: "drained", "gave-up": "incomplete", cancelled: "cancelled" },
  moving: { "all-placed": undefined, emptied: "drained", "gave-up": "incomplete", cancelled: "cancelled" },
  drained: { "all-placed": undefined, emptied: undefined, "gave-up": undefined, cancelled: undefined },
  incomplete: { "all-placed": undefined, emptied: undefined, "gave-up": undefined, cancelled: undefined },
  cancelled: { "all-placed": undefined, emptied: undefined, "gave-up": undefined, cancelled: undefined },
} as const satisfies Record<DrainState, Record<DrainEvent, DrainState | undefined>>;

/** The state after the event, or undefined when the event is ignored in this state. */
export function nextDrainState(state: DrainState, event: DrainEvent): DrainState | undefined {
  return drainTransitions[state][event];
}

/** Whether nothing more will happen to a drain. */
export function isDrainOver(state: DrainState): boolean {
  return drainEvents.every((event) => drainTransitions[state][event] === undefined);
}

/**
 * What has become of one pod of the host.
 *
 * ```
 * pending ⇄ claimed → moving → moved ⇄ returning → returned
 *    └→ blocked        │          └→ stayed
 *                      └→ pending (elsewhere) | failed
 * ```
 * `blocked`: there is no place for it; where that may pass it is `pending` again after a while. `left`: it stays, because time was up or the drain was cancelled. `gone`: it is not
 * the host's any more by itself. `lost`: its host is gone and there is nothing to bring it back from. `stayed`: it
 * was to come home and could not, however often that was tried.
 */
export const drainPodStates = [
  "pending",
  "claimed",
  "moving",
  "moved",
  "blocked",
  "failed",
  "left",
  "gone",
  "lost",
  "returning",
  "returned",
  "stayed",
] as const;
export type DrainPodState = (typeof drainPodStates)[number];

/** Whether a drain is done with a pod in this state, well or badly. */
export const drainPodIsSettled = {
  pending: false,
  claimed: false,
  moving: false,
  moved: true,
  blocked: true,
  failed: true,
  left: true,
  gone: true,
  lost: true,
  returning: true,
  returned: true,
  stayed: true,
} as const satisfies Record<DrainPodState, boolean>;

/** Whether the host is rid of a pod in this state. */
export const drainPodHasLeft = {
  pending: false,
  claimed: false,
  moving: false,
  moved: true,
  blocked: false,
  failed: false,
  left: false,
  gone: true,
  lost: true,
  returning: true,
  returned: true,
  stayed: true,
} as const satisfies Record<DrainPodState, boolean>;

/** The same as a list, for the database. */
export const drainPodLeftStates: readonly DrainPodState[] = drainPodStates.filter((state) => drainPodHasLeft[state]);
