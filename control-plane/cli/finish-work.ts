import type { Answer } from "./api/client.ts";
import type { AnswerOf } from "./api/endpoints.ts";
import type { WaitOptions } from "./client-command.ts";
import { TaskFailedError } from "./errors.ts";
import { exitCodes } from "./exit-codes.ts";
import { followTask } from "./follow-task.ts";
import type { OpenedCli } from "./open-cli.ts";
import { createProgress } from "./terminal/progress.ts";
import { whenToldToEnd } from "./terminal/when-told-to-end.ts";
import { standingOf } from "./views/pod-views.ts";

type Accepted = AnswerOf<"createPod">;

/**
 * Tells what was begun and, with `--wait`, follows it to its end and tells what became of it.
 * @throws TaskFailedError when the task did not succeed
 */
export async function finishWork(cli: OpenedCli, accepted: Answer<Accepted>, options: WaitOptions): Promise<void> {
  const { pod, task } = accepted.body;
  if (options.wait !== true) {
    cli.show(accepted, () => `${nameOf(pod)}: ${task.type} begun; watch it with: cloudpods tasks watch ${task.id}`);
    return;
  }
  const ended = await followTo(cli, task, nameOf(pod), options.waitTimeout);
  const after = await cli.api.call("showPod", { pod: pod.id });
  const text = `{"pod":${after.text},"task":${ended.text}}`;
  if (cli.isJson) cli.out.raw(text);
  requireSuccess(ended.body);
  if (!cli.isJson) cli.out.print(`${nameOf(after.body)}: ${task.type} done; ${standingOf(after.body)}`);
}

/**
 * Follows a task with a bar or lines at the standard error. Ctrl-C or SIGTERM leaves the work alone and ends the program, unless
 * the caller has `interrupted`, whose rejection ends the following.
 */
export async function followTo(
  { api }: OpenedCli,
  task: { readonly id: string; readonly type: string },
  name: string,
  deadlineMs: number,
  interrupted?: Promise<never>,
): Promise<Answer<AnswerOf<"showTask">>> {
  const progress = createProgress(process.stderr, `${name} ${task.type}`);
  let isOver = false;
  const leave = (): void => {
    progress.end();
    process.stderr.write(`The work goes on; watch it with: cloudpods tasks watch ${task.id}\n`);
    process.exit(exitCodes.interrupted.code);
  };
  const forget = interrupted === undefined ? whenToldToEnd(leave) : undefined;
  try {
    const following = followTask(api, task.id, {
      deadlineMs,
      onProgress(line) {
        if (!isOver) progress.show(line);
      },
    });
    return await (interrupted === undefined ? following : Promise.race([following, interrupted]));
  } finally {
    isOver = true;
    forget?.();
    progress.end();
  }
}

/** @throws TaskFailedError with the task's own words */
export function requireSuccess({ type, state, error }: AnswerOf<"showTask">): void {
  if (state === "succeeded") return;
  const why = error === null ? "" : `: ${error.message} (${error.code})`;
  throw new TaskFailedError(`The task ${type} ${state === "cancelled" ? "was cancelled" : "failed"}${why}`);
}

/** A pod's name and VMID. */
export function nameOf(pod: { readonly hostname: string; readonly vmid: number }): string {
  return `${pod.hostname} (${pod.vmid})`;
}
