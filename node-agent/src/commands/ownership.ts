import { setTimeout as sleep } from "node:timers/promises";
import { type Inventory, Power, type Welcome } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Logger } from "pino";
import { messageOf } from "../agent-error.ts";
import { fullJitterMs } from "../backoff.ts";
import type { Containers } from "../containers/containers.ts";
import type { Journal } from "../journal/journal.ts";
import { createChangePower, type ChangePower } from "./change-power.ts";
import type { CommandQueue } from "./command-queue.ts";
import type { CommandRunner } from "./command-runner.ts";
import { type PowerChange, containersToStart, wantedByFences, wantedByOwnership } from "./plan-ownership.ts";
import { createCopyStopper } from "./stop-copies.ts";

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
  /** Takes note of a Welcome: stops stale copies until none runs and, after a boot, starts what should run. */
  applyWelcome(welcome: Welcome): void;
  /** An operator on the host overrides: start what the journal wants, without the control plane. */
  startWithoutControlPlane(): void;
  /** Begins nothing more. */
  close(): void;
}

/** Storage may come up minutes after the host. */
const maxStartAttempts = 6;
const startBackoff = { baseMs: 2_000, capMs: 60_000 };
/** How often to look whether /etc/pve can be trusted after a boot, and how long in all. */
const inventoryPauseMs = 5_000;
const maxInventoryLooks = 60;
/** How long the stops of stale copies may hold up everything else after a boot. */
const stopFirstMs = 120_000;

/** Makes the gate in front of the command runner; it is open at once when the host did not boot. */
export function createOwnership(options: OwnershipOptions): Ownership {
  const { bootId, journal, containers, runner, log } = options;
  let isAwaiting = journal.ownershipBootId() !== bootId;
  let isTold = false;
  if (!isAwaiting) runner.open();

  const changePower = createChangePower(options);
  const copies = createCopyStopper({ containers, journal, changePower, log });
  const confirm = (): void => {
    try {
      journal.confirmOwnership(bootId);
    } catch (error) {
      log.error({ reason: messageOf(error) }, "the journal could not be written; the next start asks again");
    }
  };
  const startAll = (wanted: readonly Pick<PowerChange, "podId" | "vmid" | "generation">[]): void => {
    isAwaiting = false;
    runner.open();
    void (async () => {
      const inventory = await trustedInventory(containers, log);
      if (inventory === undefined) return;
      const changes = containersToStart(inventory.containers, wanted);
      await Promise.all(changes.map((change) => start(change, changePower)));
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
      // What another host runs now must not run here as well: at once, before anything else is done.
      const stopped = copies.stop(welcome);
      if (!isAwaiting || isTold) return;
      isTold = true;
      const generations = new Map(welcome.ownedPods.map(({ podId, generation }) => [podId, generation]));
      runner.abandon((podId, generation) => generations.get(podId) === generation);
      const startOwned = (): void => {
        if (isAwaiting) startAll(wantedByOwnership(welcome.ownedPods));
      };
      // Nobody waits for a look that cannot find anything of another host's.
      if (welcome.placedElsewhere.length === 0) startOwned();
      else void Promise.race([stopped, sleep(stopFirstMs, undefined, { ref: false })]).then(startOwned);
    },
    startWithoutControlPlane() {
      if (!isAwaiting) return;
      log.warn("an operator lets this host start its containers without the control plane");
      startAll(wantedByFences(journal.fences()));
    },
    close: () => copies.close(),
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

/** A storage may not be up yet; what will not change by itself is left to the control plane's reconciler. */
async function start(change: PowerChange, changePower: ChangePower): Promise<void> {
  for (let attempt = 0; attempt < maxStartAttempts; attempt += 1) {
    const failure = await changePower(change, Power.POWER_RUNNING);
    if (failure?.retryable !== true) return;
    await sleep(fullJitterMs(attempt, Math.random(), startBackoff), undefined, { ref: false });
  }
}
