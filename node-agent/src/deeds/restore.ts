import type { BackupObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { beganHalf, clearAway } from "../containers/clear-away.ts";
import { ContainerFailure, asFailure } from "../containers/container-failure.ts";
import type { ContainerOutcome, DeedOptions, RestoreOrder } from "../containers/containers.ts";
import { converge } from "../containers/converge.ts";
import type { ConvergeDoors } from "../containers/doors.ts";
import type { Execution } from "../containers/execution.ts";
import { requireQuorum } from "../containers/host-view.ts";
import { noteRestore, replaceMarker } from "../containers/marker.ts";
import type { Marker } from "../containers/marker.ts";
import type { ObservedContainer } from "../containers/observed-container.ts";
import { newContainerOptions } from "../containers/plan-config.ts";
import { createPatience } from "../containers/patience.ts";
import { cleanUp } from "../containers/plan-container.ts";
import { step } from "../containers/plan-step.ts";
import type { StepResult } from "../containers/run-step.ts";
import type { ArchiveName } from "../pct/parse-archives.ts";
import { parseRootDisk } from "../pct/parse-pct-config.ts";
import { pctRestore, pctUnlock } from "../pct/pct-arguments.ts";
import type { Invocation } from "../pct/pct-arguments.ts";
import { readConfigFile, readStorages, takeConfigFile } from "../pct/read-cluster.ts";
import { findArchive, observationOfAbsence, observationOfArchive, requireArchive } from "./archives.ts";
import type { FoundArchive } from "./archives.ts";
import { carryOut, takeStep } from "./deed.ts";
import { planRestore } from "./plan-restore.ts";
import type { RestoreFacts, RestoreStep } from "./plan-restore.ts";
import { requireRoomBeside, withRoomBeside } from "./room.ts";

/** Digest of no keys that anybody could wish: what the archive held is replaced at the next start. */
export const UNKNOWN_KEYS = "0".repeat(16);
/** How often `pct restore` may say that it succeeded while nothing is there. */
const MAX_RESTORES = 2;

/**
 * Makes a pod's container from an archive, or takes it over from a dead member of the cluster; then its
 * configuration follows the specification as with any wish. The step that restores also writes the marker, the
 * generation and the name of the command, so that nobody restores twice. @throws ContainerFailure
 */
export async function restore(
  order: RestoreOrder,
  options: DeedOptions,
  doors: ConvergeDoors,
): Promise<ContainerOutcome> {
  const startedMs = performance.now();
  const made = await carryOut(order.vmid, options, doors, async (execution) => {
    const run = new Restoration(order, options, execution, doors);
    try {
      return { backup: await run.fulfil() };
    } catch (error) {
      await run.clearAway();
      throw error;
    }
  });
  const deadlineMs = Math.max(1, options.deadlineMs - (performance.now() - startedMs));
  const wish = { ...order, present: true };
  const { observation, commandLines } = await converge(wish, { ...options, deadlineMs }, doors);
  return { ...made, observation, commandLines: [...made.commandLines, ...commandLines] };
}

/** The program that makes the container from an archive, which also writes its configuration and its mark. */
export function restoreInvocation(
  { spec, podId, fleetEpoch, generation, vmid }: RestoreOrder,
  volumeId: string,
  commandId: string,
  { present, overwrite }: { readonly present: ObservedContainer | undefined; readonly overwrite: boolean },
): Invocation {
  const marker: Marker = { podId, fleetEpoch, generation, stage: "ready", keys: UNKNOWN_KEYS };
  // What people wrote about the container stays.
  const description = replaceMarker(present?.where === "here" ? present.config.description : "", marker);
  return pctRestore({
    vmid,
    volumeId,
    storage: spec.storage,
    diskGb: spec.diskGb,
    options: { ...newContainerOptions(spec, marker), description: noteRestore(description, commandId) },
    pool: spec.pool,
    overwrite,
  });
}

/**
 * Whether a restore would be begun at this moment, with nothing done: before anybody else relies on it. A container that is
 * to be replaced is stopped for it later. @throws ContainerFailure as the restore itself would
 */
export async function checkRestore(order: RestoreOrder, doors: ConvergeDoors): Promise<void> {
  await requireQuorum(doors.view);
  const ownHalf = beganHalf(doors.runner, order.vmid);
  const asked = { commandId: "", ownHalf, isStoppedBefore: isInPlace(order) };
  const { next } = await lookBefore(order, asked, doors);
  const replaces = next.kind === "unlock" || (next.kind === "restore" && next.overwrite);
  if (!replaces || !isInPlace(order)) return;
  await requireRoomBeside(order, new AbortController().signal, doors);
}

/** It replaces the pod's own container; what is taken over has lost its disk already. */
function isInPlace({ overwrite, takeOverFrom }: RestoreOrder): boolean {
  return overwrite && takeOverFrom === "";
}

/** What a restore would do next, from what is there. @throws ContainerFailure */
async function lookBefore(
  order: RestoreOrder,
  asked: Pick<RestoreFacts, "commandId" | "ownHalf" | "isStoppedBefore">,
  { view, paths }: ConvergeDoors,
): Promise<{ next: RestoreStep; observed: ObservedContainer }> {
  const { vmid, takeOverFrom } = order;
  const observed = await view.observe(vmid);
  const { online, nodeName } = await view.cluster();
  const isDead = observed.where === "elsewhere" && observed.node === takeOverFrom;
  const dead = isDead ? await readConfigFile(paths.pveRoot, takeOverFrom, vmid) : undefined;
  const config = observed.where === "here" ? observed.config : dead?.config;
  const disk = parseRootDisk(config?.options.get("rootfs") ?? "")?.storage;
  const storages = await readStorages(paths.pveRoot, nodeName);
  const next = planRestore(order, {
    ...asked,
    observed,
    dead,
    deadIsOnline: online.get(takeOverFrom) ?? false,
    diskIsShared: storages.some(({ id, shared }) => id === disk && shared),
  });
  return { next, observed };
}

/** One restore on its way to a container whose disk is as it shall be. */
class Restoration {
  readonly #order: RestoreOrder;
  readonly #options: DeedOptions;
  readonly #execution: Execution;
  readonly #doors: ConvergeDoors;
  #archive: FoundArchive | undefined;
  #ownHalf: boolean;
  #restores = 0;

  constructor(order: RestoreOrder, options: DeedOptions, execution: Execution, doors: ConvergeDoors) {
    this.#order = order;
    this.#options = options;
    this.#execution = execution;
    this.#doors = doors;
    this.#ownHalf = options.absentBefore || beganHalf(doors.runner, order.vmid);
  }

  async fulfil(): Promise<BackupObservation> {
    this.#refuseImpossible();
    const patience = createPatience(this.#doors.patience);
    for (;;) {
      this.#execution.check();
      try {
        const { next, observed } = await this.#look();
        if (next.kind === "finish") return this.#finished(next.restored);
        await this.#take(next, observed);
      } catch (error) {
        await patience.spend(asFailure(error), this.#execution.signal);
      }
    }
  }

  /** Takes away a half without a name that a restore of ours left: nobody could tell later whose it is. */
  async clearAway(): Promise<void> {
    const { commandId } = this.#execution;
    if (this.#ownHalf) await clearAway({ ...this.#order, present: false }, commandId, this.#doors);
  }

  /** Before anything is done. @throws ContainerFailure or AgentError INVALID_ARGUMENT */
  #refuseImpossible(): void {
    const { spec, volumeId } = this.#order;
    if (!spec.unprivileged) {
      throw new ContainerFailure("UNPRIVILEGED_MISMATCH", "privileged containers are not made", { retryable: false });
    }
    if (volumeId !== "") this.#invocation(requireArchive(volumeId), undefined, false);
  }

  async #look(): Promise<{ next: RestoreStep; observed: ObservedContainer }> {
    const asked = { commandId: this.#execution.commandId, ownHalf: this.#ownHalf, isStoppedBefore: false };
    return await lookBefore(this.#order, asked, this.#doors);
  }

  async #take(next: Exclude<RestoreStep, { kind: "finish" }>, observed: ObservedContainer): Promise<void> {
    const { vmid } = this.#order;
    const { paths, view } = this.#doors;
    this.#execution.report({ step: next.kind, percent: 0, detail: "" });
    this.#doors.log.info({ vmid, step: next.kind }, "takes a step of a restore");
    // Nothing is taken away, and no other host's file is touched, for an archive that is not there.
    const archive = this.#order.volumeId === "" ? undefined : await this.#requireArchive();
    switch (next.kind) {
      case "take-over": {
        await requireQuorum(view);
        const { nodeName } = await view.cluster();
        await takeConfigFile(paths.pveRoot, next.from, nodeName, vmid);
        return;
      }
      case "unlock":
        await takeStep(step("unlock", pctUnlock(vmid)), vmid, this.#execution, this.#doors);
        return;
      case "clean-up":
        await takeStep(cleanUp(vmid, paths), vmid, this.#execution, this.#doors);
        return;
      case "restore":
        if (archive !== undefined) await this.#restore(archive, observed, next.overwrite);
    }
  }

  async #restore({ name }: FoundArchive, observed: ObservedContainer, overwrite: boolean): Promise<void> {
    const { vmid } = this.#order;
    if (this.#restores === MAX_RESTORES) {
      const message = `pct restore ended well ${MAX_RESTORES} times and container ${vmid} is not restored`;
      throw new ContainerFailure("STEP_WITHOUT_EFFECT", message, { retryable: false });
    }
    if (observed.where === "nowhere") await this.#options.recordAbsent();
    const work = (present: ObservedContainer): Promise<StepResult> => {
      this.#ownHalf = true;
      const restoring = step("restore", this.#invocation(name, present, overwrite));
      return takeStep(restoring, vmid, this.#execution, this.#doors);
    };
    const result = await this.#doors.heavyTurns.take(this.#execution.signal, () =>
      overwrite ? this.#askAgain(work) : work(observed),
    );
    if (result === undefined) return;
    const { taken } = result;
    if (taken) this.#ownHalf = false;
    this.#restores += 1;
  }

  /**
   * A turn may be hours away. Until then the archive may have gone, others may have filled the storage, locked the container or
   * given it what no archive holds, and nothing of that stops pct restore before it gives the container up. Undefined: the
   * restore is not what comes next any more.
   */
  async #askAgain(work: (present: ObservedContainer) => Promise<StepResult>): Promise<StepResult | undefined> {
    this.#archive = undefined;
    await this.#requireArchive();
    const replace = async (): Promise<StepResult | undefined> => {
      const { next, observed } = await this.#look();
      return next.kind === "restore" && next.overwrite ? await work(observed) : undefined;
    };
    if (!isInPlace(this.#order)) return await replace();
    return await withRoomBeside(this.#order, this.#execution.signal, this.#doors, replace);
  }

  #invocation({ volumeId }: ArchiveName, present: ObservedContainer | undefined, overwrite: boolean): Invocation {
    return restoreInvocation(this.#order, volumeId, this.#execution.commandId, { present, overwrite });
  }

  async #requireArchive(): Promise<FoundArchive> {
    if (this.#archive !== undefined) return this.#archive;
    const { volumeId } = this.#order;
    this.#archive = await findArchive(requireArchive(volumeId), this.#execution);
    if (this.#archive !== undefined) return this.#archive;
    throw new ContainerFailure("BACKUP_MISSING", `${volumeId} is not there`, { retryable: false });
  }

  #finished(restored: boolean): BackupObservation {
    const { volumeId } = this.#order;
    // It may have been pruned since; what was made from it stays.
    if (!restored) return observationOfAbsence("");
    if (this.#archive === undefined) return { ...observationOfAbsence(volumeId), restored };
    return observationOfArchive(this.#archive, { restored });
  }
}
