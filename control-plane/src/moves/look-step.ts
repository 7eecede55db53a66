import { moveStep } from "./move-steps.ts";
import { targetSpec } from "./forward-steps.ts";
import { watchTarget } from "./watch-target.ts";

const lookTimeoutMs = 60_000;

/**
 * A dead member's entry changes hands in Proxmox, so the pod does before that: the target says first whether it would take
 * it. It sees the cluster, which may see the member alive while we hear nothing of it; then nothing is changed.
 */
export const lookStep = moveStep({
  name: "look",
  percent: 48,
  at: "target",
  waitingFor: "Asking the target whether the cluster sees the former host",
  applies: (move) => move.strategy === "take-over" && move.switchedAt === null,
  wish: (pod, move) => ({
    op: {
      $case: "inspect",
      value: {
        awaitAddressMs: 0,
        beforeRestore: {
          volumeId: move.archiveVolumeId ?? "",
          // Nothing is made of it, so nobody's keys need to go along.
          spec: { ...targetSpec(pod, move), sshAuthorizedKeys: [] },
          overwrite: true,
          takeOverFrom: move.fromPveName,
        },
      },
    },
    timeoutMs: lookTimeoutMs,
  }),
  watch: watchTarget,
  onSuccess: async ({ move }) =>
    await Promise.resolve({ kind: "done", message: `${move.toNode} would take it over from ${move.fromNode}` }),
});
