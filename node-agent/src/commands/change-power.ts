import { randomUUID } from "node:crypto";
import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Logger } from "pino";
import { AgentError, codeOf, messageOf } from "../agent-error.ts";
import type { Containers } from "../containers/containers.ts";
import type { Journal } from "../journal/journal.ts";
import type { CommandQueue } from "./command-queue.ts";
import type { PowerChange } from "./plan-ownership.ts";

/** Changes the power of a container once, in its turn among the commands about it. @returns why it could not */
export type ChangePower = (change: PowerChange, power: Power) => Promise<AgentError | undefined>;

/** What a change of power needs. */
export interface ChangePowerOptions {
  readonly containers: Pick<Containers, "converge">;
  readonly journal: Pick<Journal, "findFence" | "fleetEpoch">;
  readonly queue: Pick<CommandQueue, "offer">;
  readonly sampleFinal: (vmid: number) => Promise<void>;
  readonly log: Logger;
}

const deadlineMs = 10 * 60_000;

/** Makes the changer. Between two attempts commands about the container have their turn. */
export function createChangePower(options: ChangePowerOptions): ChangePower {
  return (change, power) =>
    new Promise((resolve) => {
      const work = async (): Promise<void> => resolve(await changeNow(change, power, options));
      if (options.queue.offer(change.vmid, work)) return;
      options.log.error(change, "the queue is full; the power of a container stays as it is for now");
      resolve(new AgentError("QUEUE_FULL", "too many commands wait", { retryable: true }));
    });
}

async function changeNow(
  change: PowerChange,
  power: Power,
  { containers, journal, sampleFinal, log }: ChangePowerOptions,
): Promise<AgentError | undefined> {
  const fence = journal.findFence(change.podId);
  const isOvertaken =
    power === Power.POWER_RUNNING &&
    fence?.generation === change.generation &&
    (!fence.present || fence.power === Power.POWER_STOPPED);
  if (isOvertaken) return undefined;
  // Nobody cancels these; a program that runs when the agent stops is left alone.
  const { signal } = new AbortController();
  // A copy whose pod runs elsewhere gets no time to shut down.
  const wish = { ...change, fleetEpoch: journal.fleetEpoch(), present: true, power, shutdownTimeoutSeconds: 0 };
  try {
    if (power === Power.POWER_STOPPED) await sampleFinal(change.vmid);
    const bounds = { commandId: randomUUID(), signal, deadlineMs };
    await containers.converge(wish, { ...bounds, absentBefore: false, recordAbsent: () => undefined });
    return undefined;
  } catch (error) {
    log.error(
      { ...change, code: codeOf(error), reason: messageOf(error) },
      "the power of a container could not be changed",
    );
    return error instanceof AgentError ? error : new AgentError("UNKNOWN_ERROR", messageOf(error), { cause: error });
  }
}
