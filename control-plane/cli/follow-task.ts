import { setTimeout as sleep } from "node:timers/promises";
import type { Answer, Api } from "./api/client.ts";
import type { AnswerOf } from "./api/endpoints.ts";
import { ApiRefusal, UnreachableError } from "./errors.ts";
import type { ProgressLine } from "./terminal/progress.ts";

type TaskAnswer = Answer<AnswerOf<"showTask">>;

const endStates = new Set(["succeeded", "failed", "cancelled"]);
const defaultPollMs = 2_000;
/** So often in a row a stream may break before its task is only polled: something between does not let streams through. */
const brokenStreamsMax = 3;

/** Whether nothing more will happen to a task. */
export function isFinished({ state }: { readonly state: string }): boolean {
  return endStates.has(state);
}

/**
 * Waits until a task is finished, telling its story: by its stream of events, else by asking again and again.
 * A control plane that is away for a while is waited for.
 *
 * @throws UnreachableError after `deadlineMs`; ApiRefusal when the task may not be seen
 */
export async function followTask(
  api: Api,
  taskId: string,
  options: {
    readonly deadlineMs: number;
    readonly onProgress: (line: ProgressLine) => void;
    /** Between two questions. */
    readonly pollMs?: number;
  },
): Promise<TaskAnswer> {
  const deadline = AbortSignal.timeout(options.deadlineMs);
  let lastEventId: string | undefined;
  let brokenStreams = 0;
  while (!deadline.aborted) {
    if (brokenStreams < brokenStreamsMax) {
      try {
        for await (const event of api.taskEvents(taskId, lastEventId, deadline)) {
          lastEventId = event.id;
          brokenStreams = 0;
          options.onProgress(event);
        }
      } catch (error) {
        if (!isPassing(error)) throw error;
        brokenStreams++;
      }
    }
    if (deadline.aborted) break;
    const now = await lookAt(api, taskId);
    if (now !== undefined) {
      if (brokenStreams > 0) options.onProgress({ ...now.body, message: now.body.state });
      if (isFinished(now.body)) return now;
    }
    await sleep(options.pollMs ?? defaultPollMs, undefined, { signal: deadline }).catch(() => undefined);
  }
  throw new UnreachableError(
    `The task is not finished after ${options.deadlineMs / 1_000} s and goes on; watch it with: cloudpods tasks watch ${taskId}`,
  );
}

async function lookAt(api: Api, taskId: string): Promise<TaskAnswer | undefined> {
  try {
    return await api.call("showTask", { task: taskId });
  } catch (error) {
    if (isPassing(error)) return undefined;
    throw error;
  }
}

/** Everything but a refusal that would come again. */
export function isPassing(error: unknown): boolean {
  if (error instanceof ApiRefusal) return error.problem.status >= 500 || error.problem.status === 429;
  return error instanceof UnreachableError && error.isPassing;
}
