import type { Step } from "../tasks/saga.ts";
import { sendWish } from "./command-steps.ts";
import { lockPodById } from "./pod.ts";

/** A destroy waits for the guest to stop and for the storage to free the volumes. */
const removeTimeoutMs = 600_000;
/** With the backoff's ceiling of a minute: an hour of a host that answers with faults that may pass. */
const attemptsMax = 60;

/** Volumes besides the root disk that whoever asked for the removal knew of. */
function volumesOf({ input }: { readonly input: Readonly<Record<string, unknown>> }): string[] {
  const { volumes } = input;
  return Array.isArray(volumes) ? volumes.filter((key) => typeof key === "string") : [];
}

/** The container and its disks are gone from the host; nothing to do for a pod that never had a place. */
export function removeContainerStep(name: string): Step {
  return {
    name,
    percent: 10,
    attemptsMax,
    async begin({ tx, task }) {
      const pod = await lockPodById(tx, task.podId);
      if (pod.nodeId === null) return { kind: "done", message: "There is no container to remove" };
      const sent = await sendWish(tx, pod, task.id, {
        op: { $case: "ensureAbsent", value: { volumes: volumesOf(task) } },
        timeoutMs: removeTimeoutMs,
      });
      return { kind: "wait", ...sent, message: "Removing the container" };
    },
    async resume(_, command) {
      if (command.state === "succeeded") return { kind: "done", message: "The container is gone" };
      const code = command.errorCode ?? command.state.toUpperCase();
      // The id belongs to a container that is not ours, which stays as it is: of ours there is nothing.
      if (code === "VMID_CONFLICT") return { kind: "done", message: "There is no container of ours" };
      // Somebody gave the container another volume since it was asked for: only people say what becomes of that.
      const message = command.errorMessage ?? `The host answered ${command.state}`;
      if (code === "MORE_THAN_A_POD") return { kind: "fail", code, message };
      return { kind: "retry", code, message };
    },
  };
}
