import { containerSpecOf } from "../pods/container-spec.ts";
import type { Wish } from "../pods/command-steps.ts";
import type { Pod } from "../pods/pod.ts";
import { archiveTimeoutMs } from "./archive-steps.ts";

/** What makes a pod's container from an archive, in place of one of this very pod that may be there. */
export function restoreWish(pod: Pod, volumeId: string): Wish {
  return {
    op: { $case: "restore", value: { volumeId, spec: containerSpecOf(pod), overwrite: true, takeOverFrom: "" } },
    timeoutMs: archiveTimeoutMs,
    // It may stand behind other work of the host; the pod is stopped for it already.
    ttlMs: archiveTimeoutMs,
  };
}
