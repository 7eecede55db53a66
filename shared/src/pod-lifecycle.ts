/** Life of a pod as the customer is told it. Power is a separate matter (running, stopped). */
export const podStatuses = ["provisioning", "active", "suspended", "failed", "deleting", "deleted"] as const;
export type PodStatus = (typeof podStatuses)[number];

/** What can happen to a pod. */
export const podEvents = [
  "activated",
  "provisioning-failed",
  "retried",
  "suspended",
  "resumed",
  "delete-asked",
  "delete-failed",
  "gone",
  "lost",
  "taken-back",
] as const;
export type PodEvent = (typeof podEvents)[number];

/**
 * Every state with every event; `undefined` means refused.
 *
 * ```
 * provisioning ─activated→ active ⇄ suspended
 *      └─provisioning-failed→ failed ─retried→ provisioning
 * active, suspended, failed ─delete-asked→ deleting ─gone→ deleted
 *                                   └─delete-failed→ failed
 * active, suspended ─lost→ failed: its host is gone, and there is no backup
 * failed ─taken-back→ active: its host is back with it
 * ```
 */
export const podTransitions = {
  provisioning: {
    activated: "active",
    "provisioning-failed": "failed",
    retried: undefined,
    suspended: undefined,
    resumed: undefined,
    "delete-asked": "deleting",
    "delete-failed": undefined,
    gone: undefined,
    lost: undefined,
    "taken-back": undefined,
  },
  active: {
    activated: undefined,
    "provisioning-failed": undefined,
    retried: undefined,
    suspended: "suspended",
    resumed: undefined,
    "delete-asked": "deleting",
    "delete-failed": undefined,
    gone: undefined,
    lost: "failed",
    "taken-back": undefined,
  },
  suspended: {
    activated: undefined,
    "provisioning-failed": undefined,
    retried: undefined,
    suspended: undefined,
    resumed: "active",
    "delete-asked": "deleting",
    "delete-failed": undefined,
    gone: undefined,
    lost: "failed",
    "taken-back": undefined,
  },
  failed: {
    activated: undefined,
    "provisioning-failed": undefined,
    retried: "provisioning",
    suspended: undefined,
    resumed: undefined,
    "delete-asked": "deleting",
    "delete-failed": undefined,
    gone: "deleted",
    lost: undefined,
    "taken-back": "active",
  },
  deleting: {
    activated: undefined,
    "provisioning-failed": undefined,
    retried: undefined,
    suspended: undefined,
    resumed: undefined,
    "delete-asked": undefined,
    "delete-failed": "failed",
    gone: "deleted",
    lost: undefined,
    "taken-back": undefined,
  },
  deleted: {
    activated: undefined,
    "provisioning-failed": undefined,
    retried: undefined,
    suspended: undefined,
    resumed: undefined,
    "delete-asked": undefined,
    "delete-failed": undefined,
    gone: undefined,
    lost: undefined,
    "taken-back": undefined,
  },
} as const satisfies Record<PodStatus, Record<PodEvent, PodStatus | undefined>>;

/** The state after the event, or undefined when the event is refused in this state. */
export function nextPodStatus(status: PodStatus, event: PodEvent): PodStatus | undefined {
  return podTransitions[status][event];
}

/** States in which the event is accepted; for messages and for enabling buttons. */
export function podStatusesAccepting(event: PodEvent): PodStatus[] {
  return podStatuses.filter((status) => podTransitions[status][event] !== undefined);
}

/** Only these count against a tenant's quota. */
export function countsAgainstQuota(status: PodStatus): boolean {
  return status === "provisioning" || status === "active";
}
