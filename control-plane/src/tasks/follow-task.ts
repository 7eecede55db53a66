import type { ServerSentEvent } from "../http/event-stream.ts";
import type { Queryable } from "../platform/database.ts";
import type { Hints } from "../platform/hints.ts";
import { findOwnTask } from "./change-task.ts";
import { readTaskEvents } from "./task-events.ts";
import { isFinished } from "./task.ts";

/** Even when every hint is lost a line is shown after this. */
const pollMs = 2_000;

/**
 * Streams a task's story from after `lastEventId` to its end; waits without holding a connection. Whoever has seen the end
 * already, or comes when the story is not kept any more, has the stream end at once.
 */
export async function* followTask(options: {
  readonly tenantId: string;
  readonly taskId: string;
  readonly lastEventId: string | undefined;
  readonly signal: AbortSignal;
  readonly db: Queryable;
  readonly hints: Hints;
}): AsyncGenerator<ServerSentEvent> {
  let seq = /^[0-9]{1,9}$/.test(options.lastEventId ?? "") ? Number(options.lastEventId) : 0;
  while (!options.signal.aborted) {
    const waiting = nextHint(options);
    // Asked before the events are: those of a task that was finished by then are all there.
    const { state } = await findOwnTask(options.db, options.tenantId, options.taskId);
    const events = await readTaskEvents(options.db, options, seq);
    for (const event of events) {
      yield { id: String(event.seq), event: "progress", data: event };
      seq = event.seq;
    }
    if (isFinished(state) && events.length === 0) return;
    if (events.length === 0) await waiting;
  }
}

function nextHint(options: { taskId: string; signal: AbortSignal; hints: Hints }): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      stopListening();
      options.signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, pollMs);
    const stopListening = options.hints.on("task_events", (key) => {
      if (key === options.taskId) end();
    });
    options.signal.addEventListener("abort", end, { once: true });
  });
}
