import { taskTypes } from "@cloudpods/shared/task-types";
import { Option, type Command } from "commander";
import {
  addWaitOptions,
  clientCommand,
  count,
  idOf,
  podReference,
  waitTimeoutOption,
  withCli,
  type ClientOptions,
  type WaitOptions,
} from "../client-command.ts";
import { isFinished } from "../follow-task.ts";
import { followTo, requireSuccess } from "../finish-work.ts";
import { listAll, type OpenedCli } from "../open-cli.ts";
import type { Answer } from "../api/client.ts";
import type { AnswerOf } from "../api/endpoints.ts";
import { describeCancelling, describeRetry, describeTask, renderQueue, renderTasks } from "../views/task-views.ts";

interface ListOptions extends ClientOptions {
  readonly all?: true;
  readonly state?: string;
  readonly type?: string;
  readonly pod?: string;
  readonly limit: number;
}

const taskId = idOf("task", "tasks ls");
const states = ["queued", "running", "waiting", "compensating", "succeeded", "failed", "cancelled"];

/** Adds everything about tasks. */
export function addTaskCommands(program: Command): void {
  const tasks = program.command("tasks").description("long work: list, watch, cancel, try again");
  clientCommand(tasks, "ls", "work of the tenant, newest first")
    .addOption(
      new Option("--all", "unfinished work of all tenants, oldest first, for operators").conflicts([
        "state",
        "type",
        "tenant",
      ]),
    )
    .addOption(new Option("--state <state>", "only those").choices(states))
    .addOption(new Option("--type <type>", "only those").choices(taskTypes))
    .addOption(
      new Option("--pod <pod>", "only work on this pod").argParser(podReference).conflicts(["all", "state", "type"]),
    )
    .option("--limit <number>", "show so many at most", count, 100)
    .action(async (options: ListOptions) => withCli(options, (cli) => list(cli, options)));
  clientCommand(tasks, "watch", "follow a task to its end")
    .addOption(waitTimeoutOption())
    .argument("<task>", "id", taskId)
    .action(async (task: string, options: ClientOptions & WaitOptions) =>
      withCli(options, async (cli) => {
        const now = await cli.api.call("showTask", { task });
        await follow(cli, now, options);
      }),
    );
  clientCommand(tasks, "cancel", "cancel a task; what it did is taken back")
    .argument("<task>", "id", taskId)
    .action(async (task: string, options: ClientOptions) =>
      withCli(options, async (cli) => cli.show(await cli.api.call("cancelTask", { task }), describeCancelling)),
    );
  addWaitOptions(clientCommand(tasks, "retry", "try a failed task again"))
    .argument("<task>", "id", taskId)
    .action(async (task: string, options: ClientOptions & WaitOptions) =>
      withCli(options, async (cli) => {
        const again = await cli.api.call("retryTask", { task });
        if (options.wait === true) await follow(cli, again, options);
        else cli.show(again, describeRetry);
      }),
    );
}

async function list(cli: OpenedCli, { all, state, type, pod, limit }: ListOptions): Promise<void> {
  if (all === true) {
    cli.show(await listAll(cli, "listQueue", {}, limit), ({ data }) => renderQueue(data));
    return;
  }
  const answer =
    pod === undefined
      ? await listAll(cli, "listTasks", { query: { state, type } }, limit)
      : await listAll(cli, "listPodTasks", { pod }, limit);
  cli.show(answer, ({ data }) => renderTasks(data, Date.now()));
}

async function follow(cli: OpenedCli, now: Answer<AnswerOf<"showTask">>, options: WaitOptions): Promise<void> {
  const ended = isFinished(now.body) ? now : await followTo(cli, now.body, "task", options.waitTimeout);
  if (cli.isJson) cli.out.raw(ended.text);
  requireSuccess(ended.body);
  if (!cli.isJson) cli.out.print(describeTask(ended.body));
}
