import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { type Inventory, Power, type Welcome } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Logger } from "pino";
import { codeOf, messageOf } from "../agent-error.ts";
import { fullJitterMs } from "../backoff.ts";
import { ContainerFailure } from "../containers/container-failure.ts";
import type { Containers } from "../containers/containers.ts";
import type { Journal } from "../journal/journal.ts";
import type { CommandQueue } from "./command-queue.ts";
import type { CommandRunner } from "./command-runner.ts";
import {
  type PowerChange,
  containersToStart,
  staleCopies,
  wantedByFences,
  wantedByOwnership,
} from "./plan-ownership.ts";

/** What decides whether this host may start anything. */
export interface OwnershipOptions {
  readonly bootId: string;
  readonly journal: Journal;
  readonly containers: Containers;
  readonly queue: CommandQueue;
  readonly runner: Pick<CommandRunner, "open" | "abandon">;
  readonly sampleFinal: (vmid: number) => Promise<void>;
  readonly log: Logger;
}

/** Whether the host may act on containers after a boot, and what it does first. */
export interface Ownership {
  /** True when the host booted since it was last told what it owns. */
  isAwaiting(): boolean;
  /** Takes note of a Welcome: stops stale copies and, after a boot, starts what should run. */
  applyWelcome(welcome: Welcome): void;
  /** An operator on the host overrides: start what the journal wants, without the control plane. */
  startWithoutControlPlane(): void;
}

const powerDeadlineMs = 10 * 60_000;
/** Storage may come up minutes after the host; then the control plane's reconciler takes over. */
const maxStartAttempts = 6;
const startBackoff = { baseMs: 2_000, capMs: 60_000 };
/** How often to look whether /etc/pve can be trusted after a boot, and how long in all. */
const inventoryPauseMs = 5_000;
const maxInventoryLooks = 60;
/** How long the stops of stale copies may hold up everything else after a boot. */
const stopFirstMs = 120_000;

/** Makes the gate in front of the command runner; it is open at once when the host did not boot. */
export function createOwnership(options: OwnershipOptions): Ownership {
  const { bootId, journal, containers, queue, runner, log } = options;
  let isAwaiting = journal.ownershipBootId() !== bootId;
  let isTold = false;
  if (!isAwaiting) runner.open();

  const changePower = (change: PowerChange, power: Power): Promise<void> =>
    new Promise((resolve) => {
      const work = async (): Promise<void> => {
        await changePowerNow(change, power, options);
        resolve();
      };
      if (queue.offer(change.vmid, work)) return;
      log.error(change, "the queue is full; the power of a container stays as it is");
      resolve();
    });
  const confirm = (): void => {
    try {
      journal.confirmOwnership(bootId);
    } catch (error) {
      log.error({ reason: messageOf(error) }, "the journal could not be written; the next start asks again");
    }
  };
  /** What another host runs now must not run here as well: at once, before anything else is done. */
  const stopCopies = async ({ ownedPods, placedElsewhere }: Welcome): Promise<void> => {
    for (const vmid of await containers.stopStrays().catch(() => [])) {
      log.warn({ vmid }, "a container ran here that another member of the cluster owns, and was stopped");
    }
    const inventory = isAwaiting ? await trustedInventory(containers, log) : await containers.inventory();
    if (inventory?.known !== true) return;
    const isClustered = (await containers.pveIdentity()).clusterName !== "";
    const copies = staleCopies(inventory.containers, { owned: ownedPods, elsewhere: placedElsewhere, isClustered });
    const stops = copies.map((copy) => {
      log.warn(copy, "a copy of an older placement runs and is stopped");
      return changePower(copy, Power.POWER_STOPPED);
    });
    await Promise.race([Promise.all(stops), sleep(stopFirstMs, undefined, { ref: false })]);
  };
  const stopCopiesSafely = (welcome: Welcome): Promise<void> =>
    stopCopies(welcome).catch((error: unknown) => {
      log.error({ reason: messageOf(error) }, "copies of older placements could not be looked for");
    });
  const startAll = (wanted: readonly Pick<PowerChange, "podId" | "vmid" | "generation">[]): void => {
    isAwaiting = false;
    runner.open();
    void (async () => {
      const inventory = await trustedInventory(containers, log);
      if (inventory === undefined) return;
      const changes = containersToStart(inventory.containers, wanted);
      await Promise.all(changes.map((change) => changePower(change, Power.POWER_RUNNING)));
      // Only now: an agent that dies before has to do it again.
      confirm();
      log.info({ started: changes.length }, "owned containers were started after a boot of the host");
    })();
  };

  return {
    isAwaiting: () => isAwaiting,
    applyWelcome(welcome) {
      if (welcome.fleetEpoch < journal.fleetEpoch()) {
        log.error(
          { code: "STALE_CONTROL_PLANE", epoch: String(welcome.fleetEpoch), known: String(journal.fleetEpoch()) },
          "the control plane's database is older than this host: nothing is started or stopped on its word",
        );
        return;
      }
      journal.raiseFleetEpoch(welcome.fleetEpoch);
      if (!isAwaiting || isTold) {
        void stopCopiesSafely(welcome);
        return;
      }
      isTold = true;
      const generations = new Map(welcome.ownedPods.map(({ podId, generation }) => [podId, generation]));
      runner.abandon((podId, generation) => generations.get(podId) === generation);
      const stopped = stopCopiesSafely(welcome);
      const start = (): void => {
        if (isAwaiting) startAll(wantedByOwnership(welcome.ownedPods));
      };
      // Nobody waits for a look that cannot find anything of another host's.
      if (welcome.placedElsewhere.length === 0) start();
      else void stopped.then(start);
    },
    startWithoutControlPlane() {
      if (!isAwaiting) return;
      log.warn("an operator lets this host start its containers without the control plane");
      startAll(wantedByFences(journal.fences()));
    },
  };
}

async function trustedInventory(containers: Containers, log: Logger): Promise<Inventory | undefined> {
  for (let looks = 0; looks < maxInventoryLooks; looks += 1) {
    const inventory = await containers.inventory();
    if (inventory.known) return inventory;
    if (looks === 0) log.warn("the host's configuration is not readable yet; owned containers wait");
    await sleep(inventoryPauseMs, undefined, { ref: false });
  }
  log.error("the host's configuration did not become readable; owned containers were not started");
  return undefined;
}

async function changePowerNow(
  change: PowerChange,
  power: Power,
  { containers, journal, sampleFinal, log }: OwnershipOptions,
): Promise<void> {
  const fence = journal.findFence(change.podId);
  const isOvertaken =
    power === Power.POWER_RUNNING &&
    fence?.generation === change.generation &&
    (!fence.present || fence.power === Power.POWER_STOPPED);
  if (isOvertaken) return;
  if (power === Power.POWER_STOPPED) await sampleFinal(change.vmid);
  // Nobody cancels these; a program that runs when the agent stops is left alone.
  const { signal } = new AbortController();
  // A copy whose pod runs elsewhere gets no time to shut down.
  const wish = { ...change, fleetEpoch: journal.fleetEpoch(), present: true, power, shutdownTimeoutSeconds: 0 };
  for (let attempt = 0; attempt < maxStartAttempts; attempt += 1) {
    try {
      const bounds = { commandId: randomUUID(), signal, deadlineMs: powerDeadlineMs };
      await containers.converge(wish, { ...bounds, absentBefore: false, recordAbsent: () => undefined });
      return;
    } catch (error) {
      log.error(
        { ...change, code: codeOf(error), reason: messageOf(error) },
        "the power of a container could not be changed",
      );
      if (!(error instanceof ContainerFailure) || !error.retryable) return;
      await sleep(fullJitterMs(attempt, Math.random(), startBackoff), undefined, { ref: false });
    }
  }
}
