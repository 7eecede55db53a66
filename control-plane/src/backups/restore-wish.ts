import { containerSpecOf } from "../pods/container-spec.ts";
import type { Wish } from "../pods/command-steps.ts";
import type { Pod } from "../pods/pod.ts";
import { archiveTimeoutMs } from "./archive-steps.ts";

const lookTimeoutMs = 60_000;

/** Asks the host what it would refuse that for at this moment; nothing is made, so nobody's keys go along. */
export function beforeRestoreWish(pod: Pod, volumeId: string): Wish {
  const spec = { ...containerSpecOf(pod), sshAuthorizedKeys: [] };
  const beforeRestore = { volumeId, spec, overwrite: true, takeOverFrom: "" };
  return { op: { $case: "inspect", value: { awaitAddressMs: 0, beforeRestore } }, timeoutMs: lookTimeoutMs };
}

/** What makes a pod's container from an archive, in place of one of this very pod that may be there. */
export function restoreWish(pod: Pod, volumeId: string): Wish {
  return {
    op: { $case: "restore", value: { volumeId, spec: containerSpecOf(pod), overwrite: true, takeOverFrom: "" } },
    timeoutMs: archiveTimeoutMs,
    // It may stand behind other work of the host; the pod is stopped for it already.
    ttlMs: archiveTimeoutMs,
  };
}
