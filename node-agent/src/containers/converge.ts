import { statfs } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "pino";
import { AgentError, messageOf } from "../agent-error.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import type { OperationRunner } from "../pct/operation-runner.ts";
import { parseRootDisk } from "../pct/parse-pct-config.ts";
import { readStorages } from "../pct/read-cluster.ts";
import { readInitPid } from "../pct/read-kernel.ts";
import { ContainerFailure } from "./container-failure.ts";
import type { ContainerWish } from "./container-wish.ts";
import type { ContainerOutcome, ConvergeOptions } from "./containers.ts";
import { beginExecution } from "./execution.ts";
import type { Execution } from "./execution.ts";
import type { HostView } from "./host-view.ts";
import type { KeysFiles } from "./keys-files.ts";
import { isNamelessHalf } from "./observed-container.ts";
import type { ObservedContainer } from "./observed-container.ts";
import { createPatience } from "./patience.ts";
import type { PatienceLimits } from "./patience.ts";
import { isLeftover, planContainer } from "./plan-container.ts";
import type { PlanHost, WantedKeys } from "./plan-container.ts";
import { isHeavy } from "./plan-step.ts";
import type { Step } from "./plan-step.ts";
import { attachRunning } from "./recover.ts";
import { runStep } from "./run-step.ts";
import type { KeyedTurns, Turns } from "./turns.ts";

/** What fulfilling wishes needs; made once by `createContainers`. */
export interface ConvergeDoors {
  readonly paths: HostPaths;
  readonly runner: OperationRunner;
  readonly view: HostView;
  readonly keys: KeysFiles;
  readonly log: Logger;
  readonly patience: PatienceLimits;
  readonly containerTurns: KeyedTurns;
  /** A clone locks its template for the whole copy: a second one would fail at once. */
  readonly templateTurns: KeyedTurns;
  readonly heavyTurns: Turns;
}

/** How often one step may succeed without being done afterwards. */
const MAX_REPETITIONS = 3;

/** How long a half-made container may take to be cleared away after its command has failed. */
const CLEAN_UP_MS = 120_000;

/** Storage types whose volumes can be cloned by reference; raw images on directories cannot. */
const LINKABLE_TYPES: ReadonlySet<string> = new Set(["lvmthin", "zfspool", "btrfs", "rbd"]);

/** Fulfils a wish, one wish for a container at a time. @throws ContainerFailure */
export async function converge(
  wish: ContainerWish,
  options: ConvergeOptions,
  doors: ConvergeDoors,
): Promise<ContainerOutcome> {
  const execution = beginExecution(doors.paths, doors.runner, options);
  try {
    return await doors.containerTurns.take(wish.vmid, execution.signal, async () => {
      const run = new Convergence(wish, options, execution, doors);
      try {
        return await run.fulfil();
      } catch (error) {
        await run.clearAway(asFailure(error));
        throw await run.explain(error);
      }
    });
  } catch (error) {
    throw asFailure(error);
  } finally {
    execution.close();
  }
}

/** What it takes to plan for a wish on this host. */
export async function planHost(
  wish: ContainerWish,
  keys: WantedKeys | undefined,
  ownHalf: boolean,
  { view, paths }: Pick<ConvergeDoors, "view" | "paths">,
): Promise<PlanHost> {
  const { spec } = wish;
  const source = spec?.source;
  const { nodeName } = await view.cluster();
  const storages = await readStorages(paths.pveRoot, nodeName);
  return {
    template: source?.$case === "clone" ? await view.observe(source.value.templateVmid) : undefined,
    linkableStorages: new Set(storages.filter(({ type }) => LINKABLE_TYPES.has(type)).map(({ id }) => id)),
    keys,
    ownHalf,
    lxcRoot: paths.lxcRoot,
  };
}

/** One run of a wish to its end. */
class Convergence {
  readonly #wish: ContainerWish;
  readonly #options: ConvergeOptions;
  readonly #execution: Execution;
  readonly #doors: ConvergeDoors;
  readonly #repetitions = new Map<string, number>();
  #absenceRecorded: boolean;
  #ownHalf: boolean;
  #keys: WantedKeys | undefined;
  #stepsDone = 0;
  #hidden: string | undefined;

  constructor(wish: ContainerWish, options: ConvergeOptions, execution: Execution, doors: ConvergeDoors) {
    this.#wish = wish;
    this.#options = options;
    this.#execution = execution;
    this.#doors = doors;
    this.#absenceRecorded = options.absentBefore;
    this.#ownHalf = options.absentBefore || beganHalf(doors.runner, wish.vmid);
  }

  /** Takes step after step, looking again before each, until the plan is empty. */
  async fulfil(): Promise<ContainerOutcome> {
    const { view, keys, patience: limits } = this.#doors;
    const { spec, vmid, podId } = this.#wish;
    this.#keys = spec === undefined ? keys.find(vmid, podId) : keys.keep(vmid, podId, spec.sshAuthorizedKeys);
    await attachRunning(this.#doors.runner, vmid, this.#execution);
    const patience = createPatience(limits);
    for (;;) {
      this.#execution.check();
      try {
        const observed = await view.observe(vmid);
        const [step, ...rest] = await this.#plan(observed);
        if (step === undefined) return await this.#finish(observed);
        await this.#take(step, rest.length, observed);
        patience.refill();
      } catch (error) {
        const failure = asFailure(error);
        this.#doors.log.info({ vmid, code: failure.code, reason: failure.message }, "a step failed");
        await patience.spend(failure, this.#execution.signal);
      }
    }
  }

  async #plan(observed: ObservedContainer): Promise<Step[]> {
    const host = await planHost(this.#wish, this.#keys, this.#ownHalf, this.#doors);
    return planContainer(this.#wish, observed, host);
  }

  async #take(step: Step, stepsLeft: number, observed: ObservedContainer): Promise<void> {
    const { vmid } = this.#wish;
    if (observed.where === "nowhere" && !this.#absenceRecorded) {
      await this.#options.recordAbsent();
      this.#absenceRecorded = true;
    }
    this.#countRepetition(step, this.#hidden);
    const percent = Math.floor((100 * this.#stepsDone) / (this.#stepsDone + stepsLeft + 1));
    this.#execution.report({ step: step.name, percent, detail: "" });
    this.#doors.log.info({ vmid, step: step.name }, "takes a step");
    if (["create", "clone", "destroy"].includes(step.name)) this.#ownHalf = true;
    const result = await this.#inTurn(step, async () => {
      await requireQuorum(this.#doors.view);
      const { paths } = this.#doors;
      return runStep(step, vmid, this.#execution, paths, { keys: this.#keys, percent });
    });
    if (result.taken) this.#ownHalf = false;
    this.#hidden = result.hidden;
    this.#stepsDone += 1;
    if (step.name === "resize" && result.hidden !== undefined) await this.#insistOnFileSystem(result.hidden);
  }

  /** The template that a step copies or unlocks. */
  #templateOf(step: Step): number | undefined {
    const source = this.#wish.spec?.source;
    const usesTemplate = step.name === "clone" || step.name === "unlock-template";
    return usesTemplate && source?.$case === "clone" ? source.value.templateVmid : undefined;
  }

  async #inTurn<T>(step: Step, work: () => Promise<T>): Promise<T> {
    const { heavyTurns, templateTurns } = this.#doors;
    const { signal } = this.#execution;
    const template = this.#templateOf(step);
    const inHeavyTurn = isHeavy(step) ? () => heavyTurns.take(signal, work) : work;
    // The template's turn comes first: who waits for a template shall not keep others from working.
    return template === undefined ? inHeavyTurn() : templateTurns.take(template, signal, inHeavyTurn);
  }

  /** Programs exit with 0 without having done anything: the same step again and again is a failure. */
  #countRepetition(step: Step, hidden: string | undefined): void {
    const key = JSON.stringify(step);
    const count = (this.#repetitions.get(key) ?? 0) + 1;
    this.#repetitions.set(key, count);
    if (count <= MAX_REPETITIONS) return;
    const said = hidden === undefined ? "" : `: ${hidden}`;
    const message = `the step ${step.name} was taken ${MAX_REPETITIONS} times without effect${said}`;
    throw new ContainerFailure("STEP_WITHOUT_EFFECT", message, { retryable: false });
  }

  /**
   * After a resize that complained: the configuration already shows the new size, so only the mounted
   * file system of a running container can show whether it grew too.
   */
  async #insistOnFileSystem(complaint: string): Promise<void> {
    const { view, paths } = this.#doors;
    const { vmid, spec } = this.#wish;
    const observed = await view.observe(vmid);
    if (observed.where !== "here") return;
    const size = parseRootDisk(observed.config.options.get("rootfs") ?? "")?.sizeBytes ?? 0;
    // The image did not grow either: the plan will ask again.
    if (size < (spec?.diskGb ?? 0) * 2 ** 30) return;
    const pid = observed.running ? await readInitPid(paths, vmid) : undefined;
    if (pid !== undefined) {
      const { blocks, bsize } = await statfs(join(paths.procRoot, String(pid), "root"));
      // ext4 keeps a few per cent for itself.
      if (blocks * bsize > size * 0.8) return;
    }
    throw new ContainerFailure("FILESYSTEM_NOT_GROWN", complaint, { retryable: false });
  }

  async #finish(observed: ObservedContainer): Promise<ContainerOutcome> {
    const { vmid, podId } = this.#wish;
    await forgetEnded(this.#doors.runner, vmid, observed);
    if (!this.#wish.present) this.#doors.keys.remove(vmid, podId);
    return {
      observation: this.#doors.view.describe(vmid, observed),
      commandLines: this.#execution.commandLines,
    };
  }

  /** After a failure: takes a half-made container of ours away, which nobody could ever tell is ours. */
  async clearAway({ code }: ContainerFailure): Promise<void> {
    // Nothing can be cleared while the cluster is away; the records and the journal remember.
    if (!this.#ownHalf || code === "HOST_UNKNOWN" || code === "NO_QUORUM") return;
    const { view, paths, runner, log, patience: limits } = this.#doors;
    const { vmid } = this.#wish;
    const endless = new AbortController();
    const bounds = { commandId: this.#execution.commandId, signal: endless.signal, deadlineMs: CLEAN_UP_MS };
    const execution = beginExecution(paths, runner, bounds);
    const patience = createPatience(limits);
    try {
      for (;;) {
        try {
          const observed = await view.observe(vmid);
          if (!isLeftover(this.#wish, observed, this.#ownHalf)) return;
          await attachRunning(runner, vmid, execution);
          const gone = { ...this.#wish, present: false };
          const host = await planHost(gone, undefined, this.#ownHalf, this.#doors);
          const [step] = planContainer(gone, observed, host);
          if (step === undefined) return;
          await this.#doors.heavyTurns.take(execution.signal, async () => {
            await requireQuorum(view);
            await runStep(step, vmid, execution, paths);
          });
          patience.refill();
        } catch (error) {
          await patience.spend(asFailure(error), execution.signal);
        }
      }
    } catch (error) {
      log.error({ vmid, reason: messageOf(error) }, "a half-made container could not be cleared away");
    } finally {
      execution.close();
    }
  }

  /** The failure with what was run and what is there now. */
  async explain(error: unknown): Promise<ContainerFailure> {
    const { code, message, retryable } = asFailure(error);
    const { view } = this.#doors;
    const observed = await view.observe(this.#wish.vmid).catch(() => undefined);
    if (observed !== undefined) await forgetEnded(this.#doors.runner, this.#wish.vmid, observed);
    const observation = observed === undefined ? undefined : view.describe(this.#wish.vmid, observed);
    return new ContainerFailure(code, message, {
      retryable,
      commandLines: this.#execution.commandLines,
      ...(observation === undefined ? {} : { observation }),
    });
  }
}

/** Programs of ours that make or unmake this container were begun and their end was not settled. */
function beganHalf(runner: OperationRunner, vmid: number): boolean {
  return runner.recorded(vmid).some(({ argv }) => argv.some((word) => ["create", "clone", "destroy"].includes(word)));
}

/** Removes the records of ended programs, unless they prove that a half-made container is ours. */
async function forgetEnded(runner: OperationRunner, vmid: number, observed: ObservedContainer): Promise<void> {
  if (observed.where === "here" && isNamelessHalf(observed.config)) return;
  await runner.forgetEnded(vmid);
}

/**
 * Asked right before every change: without quorum `pct destroy` removes the disk, cannot remove the
 * entry, and leaves a container without data. @throws ContainerFailure NO_QUORUM or HOST_UNKNOWN
 */
export async function requireQuorum(view: HostView): Promise<void> {
  if ((await view.cluster()).quorate) return;
  throw new ContainerFailure("NO_QUORUM", "the cluster has no quorum", { retryable: true });
}

/** Anything that was thrown, as a failure with a code. */
export function asFailure(error: unknown): ContainerFailure {
  if (error instanceof ContainerFailure) return error;
  if (error instanceof AgentError && error.code === "INVALID_ARGUMENT") {
    return new ContainerFailure("INVALID_ARGUMENT", error.message, { retryable: false });
  }
  return new ContainerFailure("UNKNOWN_ERROR", messageOf(error), { retryable: true });
}
