/** What the order of stopping is decided by. */
export interface RankedPod {
  readonly id: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** Label by which a customer says how important a pod is: a whole number, larger is more important. */
export const priorityLabel = "priority";

/**
 * Pods in the order in which a spent budget stops them: least important first, then the younger. A pod without the
 * label, or with something else than a number, has priority 0. They are given back in the reverse order.
 */
export function stopOrder<Pod extends RankedPod>(pods: readonly Pod[]): Pod[] {
  return pods.toSorted((a, b) => priorityOf(a) - priorityOf(b) || (a.id < b.id ? 1 : -1));
}

function priorityOf({ labels }: RankedPod): number {
  const text = labels[priorityLabel] ?? "";
  return /^-?[0-9]{1,9}$/.test(text) ? Number(text) : 0;
}
