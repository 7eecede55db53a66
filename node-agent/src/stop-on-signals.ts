import type { Logger } from "pino";
import { messageOf } from "./agent-error.ts";
import type { RunningAgent } from "./compose.ts";

/** How long an orderly end may take; systemd would wait for 90 s, an operator will not. */
const stopDeadlineMs = 8_000;

/**
 * Ends the process in order on SIGTERM or SIGINT; a second signal or the deadline ends it at once.
 * Programs that run on the host are left alone. An unexpected error ends the process too: the next
 * one resumes from the journal.
 */
export function stopOnSignals(agent: RunningAgent, log: Logger): void {
  let isStopping = false;
  const stop = (signal: string): void => {
    if (isStopping) process.exit(1);
    isStopping = true;
    log.info({ signal }, "agent stops");
    setTimeout(() => process.exit(1), stopDeadlineMs).unref();
    agent.stop().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ error: messageOf(error) }, "the agent did not stop in order");
        process.exit(1);
      },
    );
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  const fail = (error: unknown): void => {
    log.fatal({ err: error }, "unexpected error");
    process.exit(1);
  };
  process.on("uncaughtException", fail);
  process.on("unhandledRejection", fail);
}
