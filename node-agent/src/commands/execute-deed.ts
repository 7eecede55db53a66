import { AgentError } from "../agent-error.ts";
import type { Containers, ConvergeOptions, DeedOptions, PodContainer } from "../containers/containers.ts";
import type { ExecutionDoors } from "./execute-command.ts";
import { type ExecutionEnd, succeededWith } from "./execution-end.ts";
import type { SupportedOperation } from "./operations.ts";

/** The operations about archives, moves and takeovers. */
export type DeedOperation = Extract<
  SupportedOperation,
  { $case: "adopt" | "backup" | "deleteBackup" | "migrate" | "restore" | "verifyBackup" }
>;

/** How long a container that was taken over may take to tell its address, in ms. */
const addressMs = 5_000;

/** Carries out a deed about archives, moves or takeovers. @throws ContainerFailure or AgentError */
export async function executeDeed(
  pod: PodContainer,
  op: DeedOperation,
  bounds: ConvergeOptions,
  { containers, sampleFinal }: ExecutionDoors,
): Promise<ExecutionEnd> {
  const { podId, vmid, fleetEpoch, generation } = pod;
  const ref = { podId, vmid, fleetEpoch, generation };
  const options: DeedOptions = { ...bounds, beforeStop: () => sampleFinal(vmid) };
  switch (op.$case) {
    case "backup":
      return succeededWith(await containers.backUp({ ...ref, ...op.value }, options));
    case "deleteBackup":
      return succeededWith(await containers.deleteBackup({ vmid, ...op.value }, options));
    case "verifyBackup":
      return succeededWith(await containers.verifyBackup({ vmid, ...op.value }, options));
    case "migrate":
      return succeededWith(await containers.migrate({ ...ref, ...op.value }, options));
    case "restore": {
      const { spec } = op.value;
      if (spec === undefined) throw new AgentError("INVALID_COMMAND", "restore.spec is missing");
      return succeededWith(await containers.restore({ ...ref, ...op.value, spec }, options));
    }
    case "adopt": {
      const outcome = await containers.adopt({ ...ref, ...op.value }, options);
      return succeededWith({
        ...outcome,
        observation: await withAddress(vmid, outcome.observation, options, containers),
      });
    }
  }
}

/** An adopted container as the control plane has to describe it: with its address, also when DHCP gave it. */
async function withAddress(
  vmid: number,
  observation: Awaited<ReturnType<Containers["observe"]>>,
  { signal, deadlineMs }: DeedOptions,
  containers: Containers,
): Promise<Awaited<ReturnType<Containers["observe"]>>> {
  if (observation === undefined || observation.ip !== "") return observation;
  // It is adopted whether or not it tells.
  const ip = await containers.awaitAddress(vmid, Math.min(addressMs, deadlineMs), signal).catch(() => undefined);
  return { ...observation, ip: ip ?? "" };
}
