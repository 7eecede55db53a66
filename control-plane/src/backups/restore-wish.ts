import type { ContainerSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
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

/** Makes a container from an archive, in place of one of the same pod that may be there. */
export function restoreOperation(spec: ContainerSpec, volumeId: string): Wish["op"] {
  return { $case: "restore", value: { volumeId, spec, overwrite: true, takeOverFrom: "" } };
}

/** What makes a pod's container from an archive. */
export function restoreWish(pod: Pod, volumeId: string): Wish {
  return {
    op: restoreOperation(containerSpecOf(pod), volumeId),
    timeoutMs: archiveTimeoutMs,
    // It may stand behind other work of the host; the pod is stopped for it already.
    ttlMs: archiveTimeoutMs,
  };
}
