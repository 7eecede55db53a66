import { setTimeout as sleep } from "node:timers/promises";
import { Power, type Inventory, type Welcome } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Logger } from "pino";
import { messageOf } from "../agent-error.ts";
import { fullJitterMs } from "../backoff.ts";
import { ContainerFailure, type ContainerFailureCode } from "../containers/container-failure.ts";
import type { Containers } from "../containers/containers.ts";
import type { Journal } from "../journal/journal.ts";
import type { ChangePower } from "./change-power.ts";
import { type PowerChange, staleCopies } from "./plan-ownership.ts";

/** What stopping copies needs. */
export interface CopyStopperOptions {
  readonly containers: Pick<Containers, "inventory" | "pveIdentity" | "stopStrays">;
  readonly journal: Pick<Journal, "findFence">;
  readonly changePower: ChangePower;
  readonly log: Logger;
}

/** Stops what another host runs now. */
export interface CopyStopper {
  /**
   * Stops what a session says is not this host's to run, and goes on until all of it is stopped or a newer session says
   * what holds. Resolves when nothing of it runs any more.
   */
  stop(welcome: Welcome): Promise<void>;
  /** Tries no more. */
  close(): void;
}

/** Nobody else comes to do it while the host has no session: it is never given up, only asked for less often. */
const retryBackoff = { baseMs: 2_000, capMs: 120_000 };
/** Half of a wait is fixed, so that none is nothing. */
const leastWaitMs = 1_000;

/** The container is not the copy that was seen: gone, moved on, or marked for a placement that holds. */
const notTheCopy: ReadonlySet<ContainerFailureCode> = new Set([
  "VMID_CONFLICT",
  "STALE_GENERATION",
  "CONTAINER_MISSING",
  "ON_OTHER_NODE",
]);

/** Whether what prevented the stop leaves nothing to be stopped. */
function isNoMatter({ code, observation }: ContainerFailure): boolean {
  return notTheCopy.has(code) || (observation !== undefined && observation.power !== Power.POWER_RUNNING);
}

/** Makes a stopper; it looks at nothing before it is asked to. */
export function createCopyStopper(options: CopyStopperOptions): CopyStopper {
  let newest: { readonly ending: AbortController; readonly over: PromiseWithResolvers<void> } | undefined;
  return {
    stop(welcome) {
      const former = newest;
      const run = { ending: new AbortController(), over: Promise.withResolvers<void>() };
      newest = run;
      former?.ending.abort();
      // Who waits for the former waits for this one: what it says holds.
      former?.over.resolve(run.over.promise);
      void Promise.all([stopStrays(options, run.ending.signal), stopCopies(welcome, options, run.ending.signal)]).then(
        () => {
          if (!run.ending.signal.aborted) run.over.resolve();
        },
      );
      return run.over.promise;
    },
    close: () => newest?.ending.abort(),
  };
}

/** Repeats until it answers true. */
async function untilDone(
  attempt: () => Promise<boolean>,
  { log, signal, what }: { readonly log: Logger; readonly signal: AbortSignal; readonly what: string },
): Promise<void> {
  for (let failures = 0; !signal.aborted; failures += 1) {
    try {
      if (await attempt()) return;
    } catch (error) {
      log.error({ reason: messageOf(error) }, `${what}; it is tried again`);
    }
    const waitMs = leastWaitMs + fullJitterMs(failures, Math.random(), retryBackoff);
    await sleep(waitMs, undefined, { ref: false, signal }).catch(() => undefined);
  }
}

/** Containers that run here while another member of the cluster has their configuration. */
async function stopStrays({ containers, log }: CopyStopperOptions, signal: AbortSignal): Promise<void> {
  const attempt = async (): Promise<boolean> => {
    const { stopped, running } = await containers.stopStrays();
    for (const vmid of stopped) {
      log.warn({ vmid }, "a container ran here that another member of the cluster owns, and was stopped");
    }
    return running.length === 0;
  };
  await untilDone(attempt, { log, signal, what: "containers of other members could not be looked for" });
}

async function stopCopies(welcome: Welcome, options: CopyStopperOptions, signal: AbortSignal): Promise<void> {
  const { containers, log } = options;
  let copies: PowerChange[] = [];
  const look = async (): Promise<boolean> => {
    const inventory: Inventory = await containers.inventory();
    if (!inventory.known) {
      log.warn("the host's configuration is not readable yet; copies of older placements are looked for later");
      return false;
    }
    const { ownedPods: owned, placedElsewhere: elsewhere } = welcome;
    const isClustered = (await containers.pveIdentity()).clusterName !== "";
    copies = staleCopies(inventory.containers, { owned, elsewhere, isClustered });
    return true;
  };
  await untilDone(look, { log, signal, what: "copies of older placements could not be looked for" });
  await Promise.all(copies.map((copy) => stopCopy(copy, options, signal)));
}

async function stopCopy(
  copy: PowerChange,
  { journal, changePower, log }: CopyStopperOptions,
  signal: AbortSignal,
): Promise<void> {
  const before = journal.findFence(copy.podId);
  const attempt = async (): Promise<boolean> => {
    if (signal.aborted) return true;
    // Somebody has been told of a newer placement here, and the container may be on its way to become that.
    const fence = journal.findFence(copy.podId);
    if (fence?.generation !== before?.generation || fence?.fleetEpoch !== before?.fleetEpoch) return true;
    log.warn(copy, "a copy of an older placement runs and is stopped");
    const failure = await changePower(copy, Power.POWER_STOPPED);
    return failure === undefined || (failure instanceof ContainerFailure && isNoMatter(failure));
  };
  await untilDone(attempt, { log, signal, what: "a copy of an older placement could not be stopped" });
}
