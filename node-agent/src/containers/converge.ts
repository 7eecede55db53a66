import { type StatsFs, statfs } from "node:fs";
import { join } from "node:path";
import { type PoolCall, poolGuard, storageGroup } from "../pool-guard.ts";
import { parseRootDisk } from "../pct/parse-pct-config.ts";
import { readInitPid } from "../pct/read-kernel.ts";
import { ensureAddressFilter } from "./address-filter.ts";
import { beganHalf, clearAway, forgetEnded, freeTemplate } from "./clear-away.ts";
import { ContainerFailure, asFailure } from "./container-failure.ts";
import type { ContainerWish } from "./container-wish.ts";
import type { ContainerOutcome, ConvergeOptions } from "./containers.ts";
import type { ConvergeDoors } from "./doors.ts";
import { beginExecution } from "./execution.ts";
import type { Execution } from "./execution.ts";
import type { ObservedContainer } from "./observed-container.ts";
import { createPatience } from "./patience.ts";
import { planContainer } from "./plan-container.ts";
import type { WantedKeys } from "./plan-container.ts";
import { planHost } from "./plan-host.ts";
import { givesNewInterface } from "./new-interface.ts";
import { isHeavy, isRepair } from "./plan-step.ts";
import type { Step } from "./plan-step.ts";
import { attachRunning } from "./recover.ts";
import { runStep } from "./run-step.ts";

/** How often one step may succeed without being done afterwards. */
const MAX_REPETITIONS = 3;
/** How long a file system may take to tell its size, ms. */
const FILESYSTEM_DEADLINE_MS = 2_000;

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
        throw await run.explain(asFailure(error));
      }
    });
  } catch (error) {
    throw asFailure(error);
  } finally {
    execution.close();
  }
}

/** One run of a wish to its end. */
class Convergence {
  readonly #wish: ContainerWish;
  readonly #options: ConvergeOptions;
  readonly #execution: Execution;
  readonly #doors: ConvergeDoors;
  /** How often each step succeeded. */
  readonly #successes = new Map<string, number>();
  #absenceRecorded: boolean;
  #ownHalf: boolean;
  #keys: WantedKeys | undefined;
  /** Failures of steps that did not come again yet. */
  readonly #failures = new Map<string, ContainerFailure>();
  /** A clone of ours did not end well, or nobody knows how: it may have left its template locked. */
  #clonesInDoubt: boolean;
  #stepsDone = 0;
  #hidden: string | undefined;

  constructor(wish: ContainerWish, options: ConvergeOptions, execution: Execution, doors: ConvergeDoors) {
    this.#wish = wish;
    this.#options = options;
    this.#execution = execution;
    this.#doors = doors;
    this.#absenceRecorded = options.absentBefore;
    const hasRecords = beganHalf(doors.runner, wish.vmid);
    this.#ownHalf = options.absentBefore || hasRecords;
    this.#clonesInDoubt = hasRecords;
  }

  /** Takes step after step, looking again before each, until the plan is empty. */
  async fulfil(): Promise<ContainerOutcome> {
    const { keys, patience: limits, runner } = this.#doors;
    const { spec, vmid, podId } = this.#wish;
    const { signal } = this.#execution;
    this.#keys = spec === undefined ? keys.find(vmid, podId) : keys.keep(vmid, podId, spec.sshAuthorizedKeys);
    await attachRunning(runner, vmid, this.#execution);
    const patience = createPatience(limits);
    for (;;) {
      this.#execution.check();
      const seen = await this.#look();
      if (seen instanceof ContainerFailure) {
        await patience.spend(seen, signal);
        continue;
      }
      const [step, ...rest] = seen.steps;
      if (step === undefined || step.name === "start") {
        const failure = await this.#filterAddresses(seen.observed);
        if (failure !== undefined) {
          await patience.spend(failure, signal);
          continue;
        }
      }
      if (step === undefined) return this.#finish(seen.observed);
      // A program that failed may have done its work: only a step that comes again has failed.
      const failure = this.#failures.get(keyOf(step));
      if (failure !== undefined) {
        this.#failures.delete(keyOf(step));
        await patience.spend(failure, signal);
        continue;
      }
      const isDone = await this.#take(step, rest.length, seen.observed);
      // Taking away what a failed step left is no progress.
      if (isDone && !isRepair(step)) patience.refill();
    }
  }

  /** What is there and what is left to do, or why nothing can be done now. */
  async #look(): Promise<{ observed: ObservedContainer; steps: Step[] } | ContainerFailure> {
    try {
      const observed = await this.#doors.view.observe(this.#wish.vmid);
      const host = await planHost(this.#wish, this.#keys, this.#ownHalf, this.#doors);
      return { observed, steps: planContainer(this.#wish, observed, host) };
    } catch (error) {
      return asFailure(error);
    }
  }

  /** Undefined when the firewall file is as it should be, else why it is not. */
  async #filterAddresses(observed: ObservedContainer): Promise<ContainerFailure | undefined> {
    try {
      await ensureAddressFilter(this.#wish, observed, this.#doors);
      return undefined;
    } catch (error) {
      return asFailure(error);
    }
  }

  /** Takes a step; false when it failed, which the next look judges. */
  async #take(step: Step, stepsLeft: number, observed: ObservedContainer): Promise<boolean> {
    const { vmid } = this.#wish;
    this.#refuseRepetition(step);
    if (observed.where === "nowhere" && !this.#absenceRecorded) {
      await this.#options.recordAbsent();
      this.#absenceRecorded = true;
    }
    const percent = Math.floor((100 * this.#stepsDone) / (this.#stepsDone + stepsLeft + 1));
    this.#execution.report({ step: step.name, percent, detail: "" });
    this.#doors.log.info({ vmid, step: step.name }, "takes a step");
    if (["create", "clone", "destroy"].includes(step.name)) this.#ownHalf = true;
    try {
      if (givesNewInterface(step, observed)) await this.#options.beforeNewInterface?.();
      const { paths, view } = this.#doors;
      const doors = { paths, view, keys: this.#keys, percent };
      const result = await this.#inTurn(step, () => runStep(step, vmid, this.#execution, doors));
      if (result.taken) this.#ownHalf = false;
      this.#hidden = result.hidden;
    } catch (error) {
      const failure = asFailure(error);
      this.#failures.set(keyOf(step), failure);
      // Who finds the template locked has not locked it.
      if (step.name === "clone" && failure.code !== "LOCKED") this.#clonesInDoubt = true;
      this.#doors.log.warn({ vmid, step: step.name, code: failure.code, reason: failure.message }, "a step failed");
      return false;
    }
    this.#stepsDone += 1;
    this.#successes.set(keyOf(step), (this.#successes.get(keyOf(step)) ?? 0) + 1);
    if (step.name === "resize" && this.#hidden !== undefined) await this.#insistOnFileSystem(this.#hidden);
    return true;
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
  #refuseRepetition(step: Step): void {
    if ((this.#successes.get(keyOf(step)) ?? 0) < MAX_REPETITIONS) return;
    const said = this.#hidden === undefined ? "" : `: ${this.#hidden}`;
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
    const { storage = "", sizeBytes: size = 0 } = parseRootDisk(observed.config.options.get("rootfs") ?? "") ?? {};
    // The image did not grow either: the plan will ask again.
    if (size < (spec?.diskGb ?? 0) * 2 ** 30) return;
    const pid = observed.running ? await readInitPid(paths, vmid) : undefined;
    if (pid !== undefined) {
      const root = join(paths.procRoot, String(pid), "root");
      const call: PoolCall<StatsFs> = (done) => statfs(root, done);
      const answer = await poolGuard.ask(storageGroup(storage), root, FILESYSTEM_DEADLINE_MS, call);
      // ext4 keeps a few per cent for itself.
      if (answer.kind === "answered" && answer.value.blocks * answer.value.bsize > size * 0.8) return;
    }
    throw new ContainerFailure("FILESYSTEM_NOT_GROWN", complaint, { retryable: false });
  }

  async #finish(observed: ObservedContainer): Promise<ContainerOutcome> {
    const { vmid, podId } = this.#wish;
    if (this.#clonesInDoubt) await freeTemplate(vmid, this.#execution.commandId, this.#doors);
    await forgetEnded(this.#doors.runner, vmid, observed);
    if (!this.#wish.present) this.#doors.keys.remove(vmid, podId);
    return {
      observation: this.#doors.view.describe(vmid, observed),
      commandLines: this.#execution.commandLines,
    };
  }

  /** The failure with what was run and what is there now; what is half-made is cleared away before. */
  async explain({ code, message, retryable }: ContainerFailure): Promise<ContainerFailure> {
    const { runner, view } = this.#doors;
    const { vmid } = this.#wish;
    // Nothing can be cleared while the cluster is away; the records and the journal remember.
    const isAway = code === "HOST_UNKNOWN" || code === "NO_QUORUM";
    const { commandId } = this.#execution;
    if (this.#ownHalf && !isAway) await clearAway(this.#wish, commandId, this.#doors);
    if (this.#clonesInDoubt && !isAway) await freeTemplate(vmid, commandId, this.#doors);
    const observed = await view.observe(vmid).catch(() => undefined);
    if (observed !== undefined) await forgetEnded(runner, vmid, observed);
    const observation = observed === undefined ? undefined : view.describe(vmid, observed);
    return new ContainerFailure(code, message, {
      retryable,
      commandLines: this.#execution.commandLines,
      ...(observation === undefined ? {} : { observation }),
    });
  }
}

/** Tells one step from another by its words. */
function keyOf(step: Step): string {
  return JSON.stringify(step);
}
