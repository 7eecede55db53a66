import { drainStates } from "@cloudpods/shared/drain-lifecycle";
import { Option, type Command } from "commander";
import {
  clientCommand,
  count,
  duration,
  waitTimeoutOption,
  withCli,
  type ClientOptions,
  type WaitOptions,
} from "../client-command.ts";
import { UsageError } from "../errors.ts";
import { finishDrain } from "../follow-drain.ts";
import { listAll, type OpenedCli } from "../open-cli.ts";
import { describeBegun, describeCancelling, renderDrain, renderDrains } from "../views/drain-views.ts";
import { renderDrainPlan, requirePlaces } from "../views/move-views.ts";

/** Adds the emptying and giving up of hosts. */
export function addDrainCommands(nodes: Command): void {
  addDrain(nodes);
  addDrains(nodes);
  addEvacuate(nodes);
}

/** A drain ends by its own deadline, which is a week at most. */
function addDrainWaiting(command: Command): Command {
  return command
    .option("--wait", "follow the work to its end, pod by pod")
    .addOption(waitTimeoutOption().default(8 * 86_400_000, "8d"));
}

interface DrainOptions extends ClientOptions, WaitOptions {
  readonly dryRun?: true;
  readonly cancel?: true;
  readonly reason: string;
  /** Milliseconds. */
  readonly deadline?: number;
  readonly maxParallel?: number;
  readonly onNoCapacity?: string;
  readonly onDeadline?: string;
  readonly returnHome?: true;
}

function addDrain(nodes: Command): void {
  addDrainWaiting(clientCommand(nodes, "drain", "empty a host: cordon it and move its pods elsewhere"))
    .argument("<node>", "name or id")
    .option("--dry-run", "tell what would happen and change nothing")
    .option("--reason <text>", "why; others see it", "by the command line")
    .option("--deadline <duration>", "how long it may take; by default 4h", duration)
    .option("--max-parallel <number>", "pods that move at once; by default 2", count)
    .addOption(
      new Option("--on-no-capacity <what>", "unless all have a place: move none (default), or those that have").choices(
        ["fail", "partial"],
      ),
    )
    .addOption(
      new Option(
        "--on-deadline <what>",
        "leave what has not begun (default), or stop the rest by force and restore it elsewhere",
      ).choices(["leave", "stop-and-restore"]),
    )
    .option("--return-home", "bring the pods back when the host is open again")
    .addOption(
      new Option("--cancel", "begin nothing more of a drain or evacuation that is under way").conflicts([
        "dryRun",
        "reason",
        "deadline",
        "maxParallel",
        "onNoCapacity",
        "onDeadline",
        "returnHome",
      ]),
    )
    .action(async (node: string, options: DrainOptions) => {
      await withCli(options, (cli) => (options.cancel === true ? cancel : drain)(cli, node, options));
    });
}

async function drain(cli: OpenedCli, node: string, options: DrainOptions): Promise<void> {
  const { reason, deadline, maxParallel, onNoCapacity, onDeadline, returnHome } = options;
  const deadlineSeconds = deadline === undefined ? undefined : Math.ceil(deadline / 1_000);
  const body = { reason, deadlineSeconds, maxParallel, onNoCapacity, onDeadline, returnHome };
  if (options.dryRun === true) {
    const plan = await cli.api.call("previewDrain", { node, body });
    cli.show(plan, renderDrainPlan);
    requirePlaces(plan.body);
    return;
  }
  const begun = await cli.api.call("drainNode", { node, body });
  await finishDrain(cli, begun, { ...options, wanted: ["drained"], describe: describeBegun });
}

async function cancel(cli: OpenedCli, node: string, options: DrainOptions): Promise<void> {
  const begun = await cli.api.call("cancelDrain", { node });
  await finishDrain(cli, begun, { ...options, wanted: ["cancelled", "drained"], describe: describeCancelling });
}

interface DrainsOptions extends ClientOptions, WaitOptions {
  readonly state?: string;
  readonly limit: number;
}

function addDrains(nodes: Command): void {
  addDrainWaiting(clientCommand(nodes, "drains", "drains and evacuations, newest first, or a host's last one by pod"))
    .argument("[node]", "name or id")
    .addOption(new Option("--state <state>", "only those, of all hosts").choices(drainStates))
    .option("--limit <number>", "show so many at most", count, 100)
    .action(async (node: string | undefined, { state, limit, ...options }: DrainsOptions) => {
      if (node === undefined && options.wait === true) throw new UsageError("Name the host that --wait is for.");
      if (node !== undefined && state !== undefined) throw new UsageError("--state is for the list of all hosts.");
      await withCli(options, async (cli) => {
        if (node === undefined) {
          const answer = await listAll(cli, "listDrains", { query: { state } }, limit);
          cli.show(answer, ({ data }) => renderDrains(data, Date.now()));
          return;
        }
        await finishDrain(cli, await cli.api.call("showDrain", { node }), {
          ...options,
          wanted: ["drained"],
          describe: (last) => renderDrain(last, Date.now()),
        });
      });
    });
}

interface EvacuateOptions extends ClientOptions, WaitOptions {
  readonly confirmFenced?: true;
  readonly reason: string;
  readonly onNoBackup?: string;
  readonly maxParallel?: number;
  readonly dryRun?: true;
}

function addEvacuate(nodes: Command): void {
  addDrainWaiting(clientCommand(nodes, "evacuate", "give up a host that is gone and bring its pods back elsewhere"))
    .argument("<node>", "name or id")
    .option("--confirm-fenced", "the host is cut off for good: nothing of it runs or will reach anything")
    .requiredOption("--reason <text>", "why; others see it")
    .addOption(
      new Option("--on-no-backup <what>", "of pods that nothing is left of: keep them (default), or mark-lost").choices(
        ["keep", "mark-lost"],
      ),
    )
    .option("--max-parallel <number>", "pods that come back at once; by default 4", count)
    .option("--dry-run", "tell what would come back from what and change nothing")
    .addHelpText("after", "\nOne that is under way is cancelled by: cloudpods nodes drain NODE --cancel")
    .action(async (node: string, options: EvacuateOptions) => {
      const { confirmFenced, reason, onNoBackup, maxParallel } = options;
      const body = { confirmFenced, reason, onNoBackup, maxParallel };
      await withCli(options, async (cli) => {
        if (options.dryRun === true) {
          const plan = await cli.api.call("previewEvacuate", { node, body });
          cli.show(plan, renderDrainPlan);
          requirePlaces(plan.body, onNoBackup === "mark-lost" ? ["NO_BACKUP"] : [], true);
          return;
        }
        const begun = await cli.api.call("evacuateNode", { node, body });
        await finishDrain(cli, begun, { ...options, wanted: ["drained"], describe: describeBegun });
      });
    });
}
