import { type MoveObservation, Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { ContainerFailure, asFailure } from "../containers/container-failure.ts";
import type { ContainerOutcome, DeedOptions, MigrateOrder } from "../containers/containers.ts";
import type { ConvergeDoors } from "../containers/doors.ts";
import type { Execution, InvocationEnd } from "../containers/execution.ts";
import { requireQuorum } from "../containers/host-view.ts";
import { parseMarker } from "../containers/marker.ts";
import { lockOf } from "../containers/observed-container.ts";
import { classifyPctError } from "../pct/classify-pct-error.ts";
import { parseMigrationLog } from "../pct/parse-archives.ts";
import type { MigrationLog } from "../pct/parse-archives.ts";
import { pctMigrate } from "../pct/pct-arguments.ts";
import type { Invocation } from "../pct/pct-arguments.ts";
import type { ContainerConfig } from "../pct/parse-pct-config.ts";
import { readConfigFile, readStorages } from "../pct/read-cluster.ts";
import { carryOut, interrupted, patiently, placeAgain, requireFree } from "./deed.ts";
import { refuseImmovable } from "./plan-migrate.ts";
import { settle } from "./settle.ts";
import type { Leftovers } from "./settle.ts";

/** Proxmox's own patience with a guest that shuts down, in seconds. */
const DEFAULT_SHUTDOWN_SECONDS = 180;
const MIGRATION_LOCKS: ReadonlySet<string> = new Set(["migrate"]);

/** What was seen of a migration, by this process's monotonic clock. */
interface Watch {
  /** When its shutdown began; 0: not yet. */
  shutdownMs: number;
  /** Until it ran on the target. */
  downtimeMs: number;
}

/**
 * Moves a container to another member of its cluster. What the program says decides nothing: the container is
 * where its configuration is, and it is moved when that was seen in the target's directory. One that is still
 * here is unlocked and started again if it ran. @throws ContainerFailure with `move`
 */
export async function migrate(
  order: MigrateOrder,
  options: DeedOptions,
  doors: ConvergeDoors,
): Promise<ContainerOutcome> {
  return carryOut(order.vmid, options, doors, async (execution) => {
    const invocation = migrateInvocation(order);
    const former = await lastMigration(order, execution, doors);
    if (former !== undefined) await settle(order, leftBy(former), execution, doors);
    const arrived = await patiently(execution, doors, () => findArrived(order, former, doors));
    if (arrived !== undefined) return { move: arrived };
    const watch: Watch = { shutdownMs: 0, downtimeMs: 0 };
    try {
      if (former !== undefined) throw interrupted("a migration");
      const moving = () => move(order, invocation, execution, options, doors, watch);
      return { move: await patiently(execution, doors, moving) };
    } catch (error) {
      const { code, message, retryable } = asFailure(error);
      // A guest that did not shut down ran on.
      const hasStopped = watch.shutdownMs > 0 && code !== "SHUTDOWN_TIMEOUT";
      const awayMs = () => (hasStopped ? Math.round(performance.now() - watch.shutdownMs) : 0);
      const place = await placeAgain(order.vmid, doors, awayMs);
      throw new ContainerFailure(code, message, { retryable, ...(place === undefined ? {} : { move: place }) });
    }
  });
}

/** The program of a migration. */
export function migrateInvocation({ vmid, target, targetStorage, shutdownTimeoutSeconds }: MigrateOrder): Invocation {
  const timeoutSeconds = shutdownTimeoutSeconds === 0 ? DEFAULT_SHUTDOWN_SECONDS : shutdownTimeoutSeconds;
  return pctMigrate({ vmid, target, targetStorage, timeoutSeconds });
}

/** @throws ContainerFailure for what Proxmox would refuse, before anything is done */
export async function refuseMigration(
  order: MigrateOrder,
  config: ContainerConfig,
  doors: ConvergeDoors,
): Promise<void> {
  await requireTarget(order.target, doors);
  refuseImmovable(order, config, await storagesOf(order, doors));
}

async function move(
  order: MigrateOrder,
  invocation: Invocation,
  execution: Execution,
  options: DeedOptions,
  doors: ConvergeDoors,
  watch: Watch,
): Promise<MoveObservation> {
  const { vmid } = order;
  await requireQuorum(doors.view);
  await requireTarget(order.target, doors);
  const follow = (line: string): void => {
    if (/ shutdown CT \d+$/u.test(line)) watch.shutdownMs = performance.now();
    if (line.includes(" migration finished ") && watch.shutdownMs > 0) {
      watch.downtimeMs = Math.round(performance.now() - watch.shutdownMs);
    }
    execution.report({ step: "migrate", percent: 0, detail: line });
  };
  let ended: InvocationEnd | undefined;
  try {
    ended = await doors.heavyTurns.take(execution.signal, async () => {
      const container = await requireFree(order, execution, doors);
      await refuseMigration(order, container.config, doors);
      // From here on it is no longer only waiting.
      execution.report({ step: "migrate", percent: 0, detail: "" });
      if (container.running) await options.beforeStop();
      return execution.run(vmid, invocation, follow);
    });
  } finally {
    const log = await lastMigration(order, execution, doors);
    if (log !== undefined) await settle(order, leftBy(log), execution, doors);
  }
  const log = parseMigrationLog(ended.output.stdout);
  const arrived = await findArrived(order, log, doors);
  if (arrived !== undefined) return { ...arrived, downtimeMs: BigInt(watch.downtimeMs) || arrived.downtimeMs };
  throw failureOf(ended, log);
}

function failureOf({ end, output }: InvocationEnd, log: MigrationLog): ContainerFailure {
  if (end.kind === "exited" && end.exitCode === 0) {
    const message = "pct migrate ended well and the container is still here";
    return new ContainerFailure("STEP_WITHOUT_EFFECT", message, { retryable: true });
  }
  if (end.kind !== "exited" || (log.failure === undefined && output.stderr.trim() === "")) {
    return new ContainerFailure("INTERRUPTED", "pct migrate was killed", { retryable: true });
  }
  // stderr says "migration aborted" and no more; the reason is in the log.
  const { code, message, retryable } = classifyPctError(log.failure ?? output.stderr);
  return new ContainerFailure(code === "UNKNOWN_ERROR" ? "MIGRATION_FAILED" : code, message, { retryable });
}

/** @throws ContainerFailure unless the target is another member that the cluster sees */
async function requireTarget(target: string, doors: ConvergeDoors): Promise<void> {
  const { online, nodeName } = await doors.view.cluster();
  if (target === nodeName) {
    throw new ContainerFailure("INVALID_ARGUMENT", "the target is this host", { retryable: false });
  }
  const isOnline = online.get(target);
  if (isOnline === undefined) {
    throw new ContainerFailure("NODE_MISSING", `no such cluster node '${target}'`, { retryable: false });
  }
  if (!isOnline) throw new ContainerFailure("MEMBER_OFFLINE", `node ${target} is away`, { retryable: true });
}

async function storagesOf({ target }: MigrateOrder, { paths, view }: ConvergeDoors) {
  const { nodeName } = await view.cluster();
  const [here, there] = await Promise.all([readStorages(paths.pveRoot, nodeName), readStorages(paths.pveRoot, target)]);
  return { here, there };
}

/** Where the container is when it has arrived. @throws ContainerFailure when it belongs to somebody else there */
async function findArrived(
  order: MigrateOrder,
  log: MigrationLog | undefined,
  { paths, view }: ConvergeDoors,
): Promise<MoveObservation | undefined> {
  const { vmid, target, podId } = order;
  const observed = await view.observe(vmid);
  if (observed.where !== "elsewhere" || observed.node !== target || observed.type !== "lxc") return undefined;
  const file = await readConfigFile(paths.pveRoot, target, vmid);
  if (file === undefined) return undefined;
  if (parseMarker(file.config.description)?.podId !== podId) {
    throw new ContainerFailure("VMID_CONFLICT", `container ${vmid} on node ${target} is not the pod's`, {
      retryable: false,
    });
  }
  if (log?.isFinished !== true || lockOf(file.config) !== "") {
    // It has moved; whether it was started there cannot be seen from here.
    return { pveName: target, power: Power.POWER_UNSPECIFIED, downtimeMs: 0n };
  }
  const power = log.wasRunning ? Power.POWER_RUNNING : Power.POWER_STOPPED;
  return { pveName: target, power, downtimeMs: BigInt(log.downtimeMs) };
}

/** The log of a migration that this command began, whose record is still there; it has ended. */
async function lastMigration(
  { vmid }: MigrateOrder,
  { commandId }: Execution,
  { runner }: ConvergeDoors,
): Promise<MigrationLog | undefined> {
  const record = runner
    .recorded(vmid)
    .findLast((entry) => entry.commandId === commandId && entry.argv[1] === "migrate");
  const operation = record === undefined ? undefined : await runner.attach(record.operationId);
  return operation === undefined ? undefined : parseMigrationLog((await operation.output()).stdout);
}

/** What a migration that ended before the container was moved may have left. */
function leftBy({ wasRunning }: MigrationLog): Leftovers {
  return { locks: MIGRATION_LOCKS, shallRun: wasRunning };
}
