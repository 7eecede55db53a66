import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import type { Logger } from "pino";
import type { DisciplinedClock } from "../clock/disciplined-clock.ts";
import { argumentVector } from "../pct/command-line.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import { adopt } from "../deeds/adopt.ts";
import { backUp } from "../deeds/back-up.ts";
import { deleteBackup } from "../deeds/delete-backup.ts";
import { migrate } from "../deeds/migrate.ts";
import { planCommands } from "../deeds/plan-commands.ts";
import { checkRestore, restore } from "../deeds/restore.ts";
import { verifyBackup } from "../deeds/verify-backup.ts";
import { createOperationRunner } from "../pct/operation-runner.ts";
import type { OperationRunner } from "../pct/operation-runner.ts";
import { parseInterfaceAddress, parsePveVersion } from "../pct/parse-pct-output.ts";
import { pctExec, pveVersion } from "../pct/pct-arguments.ts";
import { readHostSize } from "../pct/read-kernel.ts";
import { poolGuard } from "../pool-guard.ts";
import { createFilesystemProbe } from "../sampling/filesystem-probe.ts";
import { ContainerFailure, asFailure } from "./container-failure.ts";
import type { Containers } from "./containers.ts";
import { converge } from "./converge.ts";
import type { ConvergeDoors } from "./doors.ts";
import { beginExecution } from "./execution.ts";
import { createHostView } from "./host-view.ts";
import { createKeysFiles } from "./keys-files.ts";
import { look } from "./look.ts";
import { networkOf } from "./observed-container.ts";
import type { PatienceLimits } from "./patience.ts";
import { planLines } from "./plan-lines.ts";
import { reboot } from "./reboot.ts";
import { attachRunning } from "./recover.ts";
import { stopStrays } from "./strays.ts";
import { createStorageSizes } from "./storage-sizes.ts";
import { askStorageStatus, takeInventory } from "./take-inventory.ts";
import { createKeyedTurns, createTurns } from "./turns.ts";

/** What the containers of a host need. */
export interface ContainersOptions {
  readonly paths: HostPaths;
  /** Keeps the records of running programs and the keys of containers; survives restarts of the agent. */
  readonly operationsDir: string;
  /** The disciplined clock. */
  readonly clock: Pick<DisciplinedClock, "epochMs" | "monotonicMs">;
  readonly log: Logger;
  /** Creates, clones, resizes and destroys at a time; 3 by default. */
  readonly maxParallelOperations?: number;
  /** How long failures are waited out; a part replaces its default. */
  readonly patience?: Partial<PatienceLimits>;
  /** How long a lock must be without a holder before it is broken; 5 s by default. */
  readonly staleLockGraceMs?: number;
}

const PATIENCE: PatienceLimits = { baseMs: 500, capMs: 10_000, clusterMs: 60_000, lockMs: 300_000 };

/** Makes the door to the containers of this host. Starts nothing and reads nothing yet. */
export function createContainers(options: ContainersOptions): Containers {
  const { paths, operationsDir, log } = options;
  const runner = createOperationRunner(operationsDir);
  const view = createHostView(paths, options.staleLockGraceMs ?? 5_000);
  const keys = createKeysFiles(join(operationsDir, "keys"));
  const sizes = createStorageSizes({
    ask: () => askStorageStatus(paths, runner),
    probe: createFilesystemProbe(poolGuard),
    nowMs: () => options.clock.monotonicMs(),
  });
  const doors: ConvergeDoors = {
    paths,
    runner,
    view,
    keys,
    log,
    patience: { ...PATIENCE, ...options.patience },
    containerTurns: createKeyedTurns(),
    templateTurns: createKeyedTurns(),
    heavyTurns: createTurns(options.maxParallelOperations ?? 3, () => sizes.changed()),
    readTurns: createTurns(1),
    promisedRoom: new Map(),
    nowMs: () => options.clock.epochMs(),
  };
  const version = once(async () => {
    const never = new AbortController().signal;
    const output = await look(runner, argumentVector(paths, pveVersion()), never, 30_000);
    return parsePveVersion(output?.stdout ?? "") ?? "";
  });
  return {
    observe: (vmid) => named(async () => view.describe(vmid, await view.observe(vmid))),
    inventory: (age = "known") =>
      takeInventory(paths, view, (storages) => sizes.read(age, storages), BigInt(Math.round(options.clock.epochMs()))),
    hostCapacity: () => named(() => readHostSize(paths)),
    pveIdentity: () =>
      named(async () => {
        const { nodeName, clusterName } = await view.cluster();
        return { name: nodeName, clusterName, version: await version() };
      }),
    planLines: (wish) => named(() => planLines(wish, doors)),
    planCommands: (commands) => planCommands(commands, doors),
    converge: (wish, bounds) => converge(wish, bounds, doors),
    reboot: (wish, bounds) => reboot(wish, bounds, doors),
    backUp: (order, bounds) => backUp(order, bounds, doors),
    deleteBackup: (order, bounds) => deleteBackup(order, bounds, doors),
    verifyBackup: (order, bounds) => verifyBackup(order, bounds, doors),
    restore: (order, bounds) => restore(order, bounds, doors),
    checkRestore: (order) => named(() => checkRestore(order, doors)),
    migrate: (order, bounds) => migrate(order, bounds, doors),
    adopt: (order, bounds) => adopt(order, bounds, doors),
    stopStrays: () => named(() => stopStrays(doors)),
    awaitAddress: (vmid, ms, signal) =>
      named(() =>
        awaitAddress(vmid, ms, signal, doors).catch((error: unknown) => {
          if (!signal.aborted) throw error;
          throw new ContainerFailure("CANCELLED", "nobody waits for the address", { retryable: false });
        }),
      ),
    recover: (vmid, bounds) =>
      named(async () => {
        const execution = beginExecution(paths, runner, bounds);
        try {
          const ran = await attachRunning(runner, vmid, execution);
          return { ran, observation: view.describe(vmid, await view.observe(vmid)) };
        } finally {
          execution.close();
        }
      }),
  };
}

/** Asks the container itself until DHCP has given it an address. */
async function awaitAddress(
  vmid: number,
  ms: number,
  signal: AbortSignal,
  { paths, runner, view }: { paths: HostPaths; runner: OperationRunner; view: ConvergeDoors["view"] },
): Promise<string | undefined> {
  const argv = argumentVector(paths, pctExec(vmid, ["ip", "-4", "-o", "addr", "show", "dev", "eth0"]));
  const until = performance.now() + ms;
  for (let attempt = 0; ; attempt += 1) {
    signal.throwIfAborted();
    const observed = await view.observe(vmid);
    if (observed.where !== "here") return undefined;
    const configured = networkOf(observed.config).get("ip") ?? "";
    if (configured.includes("/")) return configured.split("/")[0];
    if (observed.running) {
      const output = await look(runner, argv, signal, 20_000);
      const address = parseInterfaceAddress(output?.stdout ?? "");
      if (address !== undefined) {
        view.learnAddress(vmid, observed, address);
        return address;
      }
    }
    const leftMs = until - performance.now();
    if (leftMs <= 0) return undefined;
    // Each question costs half a second of a processor on a real host.
    await pause(Math.min(leftMs, 500 * 2 ** Math.min(attempt, 3)), undefined, { signal });
  }
}

/** Gives every failure a code. */
async function named<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw asFailure(error);
  }
}

/** Asks once and remembers an answer; a failure is asked again. */
function once(ask: () => Promise<string>): () => Promise<string> {
  let answer = "";
  return async () => (answer === "" ? (answer = await ask()) : answer);
}
