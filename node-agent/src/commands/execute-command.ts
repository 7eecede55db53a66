import { type Command, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { AgentError } from "../agent-error.ts";
import type { Containers, ConvergeOptions } from "../containers/containers.ts";
import type { Fence } from "../journal/journal.ts";
import { executeDeed } from "./execute-deed.ts";
import { type ExecutionEnd, endOfFailure, succeeded } from "./execution-end.ts";
import type { SupportedOperation } from "./operations.ts";

/** Doors to the rest of the agent that an execution uses. */
export interface ExecutionDoors {
  readonly containers: Containers;
  /** Reads what a container used since the last tick, before it stops. */
  readonly sampleFinal: (vmid: number) => Promise<void>;
  readonly renewCertificate: () => Promise<void>;
  /** Cancels another command and resolves when it has ended. */
  readonly cancel: (commandId: string, signal: AbortSignal) => Promise<void>;
}

/**
 * Carries a command out once.
 *
 * @param fence the newest wishes accepted for the pod
 * @throws ContainerFailure, or AgentError for what concerns no container
 */
export async function executeCommand(
  command: Command,
  op: SupportedOperation,
  fence: Fence | undefined,
  options: ConvergeOptions,
  doors: ExecutionDoors,
): Promise<ExecutionEnd> {
  const { podId, vmid, fleetEpoch, generation } = command;
  const pod = { podId, vmid, fleetEpoch, generation };
  const converge = async (wish: Partial<Parameters<Containers["converge"]>[0]>): Promise<ExecutionEnd> => {
    const beforeNewInterface = (): Promise<void> => doors.sampleFinal(vmid);
    const outcome = await doors.containers.converge(
      { ...pod, present: true, ...wish },
      { ...options, beforeNewInterface },
    );
    return succeeded(outcome.observation, outcome.commandLines);
  };
  switch (op.$case) {
    case "ensureContainer": {
      // The newest specification, not the one of this command: it may have waited behind others.
      const spec = fence?.spec ?? op.value.spec;
      return converge(spec === undefined ? {} : { spec });
    }
    case "ensurePower": {
      const { power, shutdownTimeoutSeconds } = op.value;
      if (power === Power.POWER_STOPPED) await doors.sampleFinal(vmid);
      return converge({ power, shutdownTimeoutSeconds });
    }
    case "ensureAbsent":
      await doors.sampleFinal(vmid);
      return converge({ present: false, volumes: op.value.volumes });
    case "reboot": {
      await doors.sampleFinal(vmid);
      const { shutdownTimeoutSeconds } = op.value;
      const outcome = await doors.containers.reboot({ ...pod, shutdownTimeoutSeconds }, options);
      return succeeded(outcome.observation, outcome.commandLines);
    }
    case "adopt":
    case "backup":
    case "deleteBackup":
    case "migrate":
    case "restore":
    case "verifyBackup":
      return executeDeed(pod, op, options, doors);
    case "inspect": {
      const { beforeRestore } = op.value;
      if (beforeRestore?.spec !== undefined) {
        await doors.containers.checkRestore({ ...pod, ...beforeRestore, spec: beforeRestore.spec });
        return succeeded(undefined);
      }
      const waitMs = Math.min(op.value.awaitAddressMs, options.deadlineMs);
      return inspect(vmid, waitMs, options.signal, doors.containers);
    }
    case "cancelCommand":
      await doors.cancel(op.value.commandId, AbortSignal.timeout(options.deadlineMs));
      return succeeded(undefined);
    case "renewCertificate":
      await doors.renewCertificate();
      return succeeded(undefined);
  }
}

async function inspect(
  vmid: number,
  awaitAddressMs: number,
  signal: AbortSignal,
  containers: Containers,
): Promise<ExecutionEnd> {
  const before = await containers.observe(vmid);
  if (before === undefined || awaitAddressMs === 0) return succeeded(before);
  const ip = await containers.awaitAddress(vmid, awaitAddressMs, signal);
  if (ip === undefined) {
    const message = `The container got no address within ${awaitAddressMs} ms.`;
    const end = endOfFailure(new AgentError("NO_ADDRESS", message, { retryable: true }));
    return { ...end, observation: before };
  }
  const after = await containers.observe(vmid);
  return succeeded(after === undefined ? undefined : { ...after, ip });
}
