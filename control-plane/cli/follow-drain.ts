import { setTimeout as sleep } from "node:timers/promises";
import type { Answer, Api } from "./api/client.ts";
import type { AnswerOf } from "./api/endpoints.ts";
import type { WaitOptions } from "./client-command.ts";
import { TaskFailedError, UnreachableError } from "./errors.ts";
import { exitCodes } from "./exit-codes.ts";
import { isPassing } from "./follow-task.ts";
import type { OpenedCli } from "./open-cli.ts";
import { createLiveLines } from "./terminal/live-lines.ts";
import { whenToldToEnd } from "./terminal/when-told-to-end.ts";
import { drainLines, renderDrain, requireEnd } from "./views/drain-views.ts";

type DrainAnswer = Answer<AnswerOf<"showDrain">>;

const defaultPollMs = 2_000;

/**
 * Tells of a drain or, with `--wait`, follows it to its end and tells what became of each pod.
 * @param wanted the states in which it may end
 * @throws TaskFailedError when it ends otherwise
 */
export async function finishDrain(
  cli: OpenedCli,
  begun: DrainAnswer,
  options: WaitOptions & {
    readonly wanted: readonly string[];
    /** Without `--wait`. */
    readonly describe: (drain: DrainAnswer["body"]) => string;
  },
): Promise<void> {
  if (options.wait !== true) {
    cli.show(begun, options.describe);
    return;
  }
  const { id, node, nodeId } = begun.body;
  const showLines = createLiveLines(process.stderr);
  showLines(drainLines(begun.body));
  const forget = whenToldToEnd(() => {
    process.stderr.write(`The work goes on; ${howToWatch(node)}\n`);
    process.exit(exitCodes.interrupted.code);
  });
  try {
    const ended = await followDrain(
      cli.api,
      { id, node, nodeId },
      {
        deadlineMs: options.waitTimeout,
        onLook: (drain) => showLines(drainLines(drain)),
      },
    );
    cli.show(ended, (drain) => renderDrain(drain, Date.now()));
    requireEnd(ended.body, options.wanted);
  } finally {
    forget();
  }
}

/**
 * Looks at a drain until it is over. A control plane that is away for a while is waited for.
 * @throws UnreachableError after `deadlineMs`; TaskFailedError when another one has followed it; ApiRefusal
 */
export async function followDrain(
  api: Api,
  { id, node, nodeId }: { readonly id: string; readonly node: string; readonly nodeId: string },
  options: {
    readonly deadlineMs: number;
    readonly onLook: (drain: DrainAnswer["body"]) => void;
    /** Between two looks. */
    readonly pollMs?: number;
  },
): Promise<DrainAnswer> {
  const deadline = AbortSignal.timeout(options.deadlineMs);
  while (!deadline.aborted) {
    const now = await lookAt(api, nodeId);
    if (now !== undefined) {
      if (now.body.id !== id) throw new TaskFailedError(`Something newer has begun on ${node}; ${howToWatch(node)}`);
      options.onLook(now.body);
      if (now.body.finishedAt !== null) return now;
    }
    await sleep(options.pollMs ?? defaultPollMs, undefined, { signal: deadline }).catch(() => undefined);
  }
  throw new UnreachableError(
    `The host is not empty after ${options.deadlineMs / 1_000} s and the work goes on; ${howToWatch(node)}`,
  );
}

function howToWatch(node: string): string {
  return `watch it with: cloudpods nodes drains ${node} --wait`;
}

async function lookAt(api: Api, nodeId: string): Promise<DrainAnswer | undefined> {
  try {
    return await api.call("showDrain", { node: nodeId });
  } catch (error) {
    if (isPassing(error)) return undefined;
    throw error;
  }
}
