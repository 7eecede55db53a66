import { randomUUID } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { type Command, type CommandPlan, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { ContainerFailure, asFailure } from "../containers/container-failure.ts";
import type { PodContainer, RestoreOrder } from "../containers/containers.ts";
import type { ConvergeDoors } from "../containers/doors.ts";
import { beginExecution } from "../containers/execution.ts";
import type { ContainerHere, ObservedContainer } from "../containers/observed-container.ts";
import { requireOwnership } from "../containers/plan-container.ts";
import { linesOf, wishLines } from "../containers/plan-lines.ts";
import { OWNER_TAG, replaceMarker } from "../containers/marker.ts";
import { pvesmFree, zstdTest } from "../pct/pct-arguments.ts";
import { pathOf, requireArchive, requireArchiveOf } from "./archives.ts";
import { backupInvocations, leavesStopped, refusePartial } from "./back-up.ts";
import { migrateInvocation, refuseMigration } from "./migrate.ts";
import { refuseOverwriting } from "./plan-restore.ts";
import { UNKNOWN_KEYS, restoreInvocation } from "./restore.ts";

/** How long a storage may take to say where an archive would lie. */
const PATH_MS = 2_000;

/**
 * What commands would run one after the other, each as if those before it had been carried out; nothing is done. A
 * command that would be refused says why, and those after it go on from what is there.
 */
export async function planCommands(commands: readonly Command[], given: ConvergeDoors): Promise<CommandPlan[]> {
  const doors = { ...given, pathOf: pathFinder(given) };
  const assumed = new Map<number, Assumed>();
  const plans: CommandPlan[] = [];
  for (const command of commands) {
    try {
      const before = assumed.get(command.vmid) ?? { seen: await doors.view.observe(command.vmid) };
      const { lines, ...after } = await planOne(command, before, doors);
      assumed.set(command.vmid, { ...before, ...after });
      plans.push({ commandLines: lines, error: undefined });
    } catch (error) {
      const { code, message, retryable } = asFailure(error);
      plans.push({ commandLines: [], error: { code, message, retryable } });
    }
  }
  return plans;
}

interface PlanDoors extends ConvergeDoors {
  /** Where an archive lies or would lie. @throws ContainerFailure */
  readonly pathOf: (volumeId: string) => Promise<string>;
}

/** A container as the commands before have left it. */
interface Assumed {
  readonly seen: ObservedContainer;
  /** The keys that a restore would have brought; absent without one. */
  readonly keys?: string[];
}

async function planOne(
  command: Command,
  { seen, keys }: Assumed,
  doors: PlanDoors,
): Promise<Assumed & { readonly lines: string[] }> {
  const { podId, vmid, fleetEpoch, generation, op } = command;
  const pod: PodContainer = { podId, vmid, fleetEpoch, generation };
  const { paths } = doors;
  switch (op?.$case) {
    case "ensureContainer": {
      const { spec } = op.value;
      if (spec === undefined) break;
      return { lines: await wishLines({ ...pod, present: true, spec }, seen, doors), seen };
    }
    case "ensurePower": {
      const running = op.value.power === Power.POWER_RUNNING;
      const lines = await wishLines({ ...pod, present: true, ...op.value }, seen, doors, keys);
      return { lines, seen: seen.where === "here" ? { ...seen, running } : seen };
    }
    case "ensureAbsent":
      return {
        lines: await wishLines({ ...pod, present: false, ...op.value }, seen, doors),
        seen: { where: "nowhere" },
      };
    case "backup": {
      const order = { ...pod, ...op.value };
      const here = requireHere(pod, seen);
      refusePartial(order, here);
      const lines = linesOf(backupInvocations(order, here.running), paths);
      return { lines, seen: { ...here, running: here.running && !leavesStopped(order) } };
    }
    case "verifyBackup":
      return { lines: linesOf([zstdTest(await doors.pathOf(op.value.volumeId))], paths), seen };
    case "deleteBackup":
      return { lines: linesOf([pvesmFree(requireArchiveOf(vmid, op.value.volumeId).volumeId)], paths), seen };
    case "migrate": {
      const order = { ...pod, ...op.value };
      await refuseMigration(order, requireHere(pod, seen).config, doors);
      return { lines: linesOf([migrateInvocation(order)], paths), seen: goneTo(order.target) };
    }
    case "restore": {
      const { spec } = op.value;
      if (spec === undefined) break;
      return planRestoring({ ...pod, ...op.value, spec }, command.commandId, seen, doors);
    }
    default:
  }
  throw new ContainerFailure("INVALID_ARGUMENT", "there is no plan for this command", { retryable: false });
}

function goneTo(node: string): ObservedContainer {
  return { where: "elsewhere", node, type: "lxc" };
}

/** Where the container is now does not matter: the host that has it gives it up before. */
function planRestoring(
  order: RestoreOrder,
  commandId: string,
  seen: ObservedContainer,
  { paths }: ConvergeDoors,
): Assumed & { readonly lines: string[] } {
  const isHere = seen.where === "here";
  if (isHere) {
    requireOwnership(order, seen);
    refuseOverwriting(order, seen);
  }
  const { volumeId } = requireArchive(order.volumeId);
  const how = { present: seen, overwrite: isHere && order.overwrite };
  const lines = linesOf([restoreInvocation(order, volumeId, commandId, how)], paths);
  return { lines, seen: restoredOf(order), keys: order.spec.sshAuthorizedKeys };
}

/** As far as anything after a restore looks at it. */
function restoredOf({ podId, fleetEpoch, generation }: RestoreOrder): ContainerHere {
  const description = replaceMarker("", { podId, fleetEpoch, generation, stage: "ready", keys: UNKNOWN_KEYS });
  const config = {
    description,
    options: new Map([["tags", OWNER_TAG]]),
    raw: [],
    pending: { options: new Map<string, string>(), deletes: [] },
    snapshots: [],
  };
  return { where: "here", config, configSha256: "", digest: "", running: false, lockIsStale: false };
}

function requireHere(pod: PodContainer, seen: ObservedContainer): ContainerHere {
  if (seen.where === "here") {
    requireOwnership(pod, seen);
    return seen;
  }
  const code = seen.where === "nowhere" ? "CONTAINER_MISSING" : "ON_OTHER_NODE";
  throw new ContainerFailure(code, `container ${pod.vmid} is not on this host`, { retryable: false });
}

/** Each storage is asked once: its archives lie side by side, and a question costs a third of a second. */
function pathFinder({ paths, runner }: ConvergeDoors): PlanDoors["pathOf"] {
  const folders = new Map<string, string>();
  return async (volumeId) => {
    const name = requireArchive(volumeId);
    const folder = folders.get(name.storage);
    if (folder !== undefined) return join(folder, basename(volumeId));
    const bounds = { commandId: randomUUID(), signal: new AbortController().signal, deadlineMs: PATH_MS };
    const execution = beginExecution(paths, runner, bounds);
    try {
      const path = await pathOf(name, execution);
      folders.set(name.storage, dirname(path));
      return path;
    } finally {
      execution.close();
    }
  };
}
