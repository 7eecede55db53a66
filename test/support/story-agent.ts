import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { AgentOrder, AgentWord, AgentWork } from "./story-agent-process.ts";
import { exitOf } from "./processes.ts";

const programPath = fileURLToPath(new URL("./story-agent-process.ts", import.meta.url));

/** An agent on a host of a story that may die at any moment. */
export interface StoryAgent {
  /** Lets the story go on; starts the agent when it does not run, also when it dies on the way. */
  goTo(atMs: number): Promise<{ readonly depth: number }>;
  /** How far the story has gone here. */
  doneMs(): number;
  isRunning(): boolean;
  /** Ends it with SIGKILL. */
  kill(): Promise<void>;
  /** What the network did to its messages in all its lives, by name. */
  meddled(): Readonly<Record<string, number>>;
}

export interface StoryAgentOptions extends Omit<AgentWork, "doneMs" | "nextMs" | "seed"> {
  /** The watermark of a spool, as a session's Welcome tells it. */
  readonly watermark: (spoolId: string) => Promise<bigint>;
}

/** Makes the agent; it is started by the first `goTo`. */
export function storyAgent({ watermark, ...work }: StoryAgentOptions): StoryAgent {
  let child: ChildProcess | undefined;
  let doneMs = work.options.fromMs - 1;
  let lives = 0;
  const before: Record<string, number> = {};
  let now: Readonly<Record<string, number>> = {};
  const totals = (): Record<string, number> =>
    Object.fromEntries(
      [...new Set([...Object.keys(before), ...Object.keys(now)])].map((name) => [
        name,
        (before[name] ?? 0) + (now[name] ?? 0),
      ]),
    );

  async function start(nextMs: number): Promise<ChildProcess> {
    const started = fork(programPath, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    child = started;
    Object.assign(before, totals());
    now = {};
    started.setMaxListeners(0); // everybody who waits for an answer also waits for its end
    await Promise.race([once(started, "message"), exitOf(started)]);
    started.on("message", (word: AgentWord) => {
      if (typeof word === "object" && "hello" in word) void greet(started, word.hello);
    });
    lives += 1;
    order(started, { begin: { ...work, doneMs, nextMs, seed: work.options.seed + 1_000 * work.host + lives } });
    return started;
  }
  async function greet(asking: ChildProcess, spoolId: string): Promise<void> {
    order(asking, { welcome: String(await watermark(spoolId)) });
  }
  return {
    async goTo(atMs) {
      for (;;) {
        const running = child ?? (await start(atMs));
        const answer = arrival(running, atMs);
        order(running, { goTo: atMs });
        const arrived = await answer;
        if (arrived === undefined) {
          if (child === running) child = undefined;
          continue;
        }
        doneMs = Math.max(doneMs, atMs);
        now = arrived.meddled;
        return arrived;
      }
    },
    doneMs: () => doneMs,
    isRunning: () => child !== undefined,
    async kill() {
      const dying = child;
      child = undefined;
      if (dying === undefined) return;
      dying.kill("SIGKILL");
      await exitOf(dying);
    },
    meddled: totals,
  };
}

/** Its answer, or undefined when it dies before. */
async function arrival(
  child: ChildProcess,
  atMs: number,
): Promise<{ depth: number; meddled: Readonly<Record<string, number>> } | undefined> {
  const answered = Promise.withResolvers<{ depth: number; meddled: Readonly<Record<string, number>> }>();
  const listen = (word: AgentWord): void => {
    if (typeof word === "object" && "at" in word && word.at === atMs) answered.resolve(word);
  };
  child.on("message", listen);
  const died = exitOf(child).then(() => undefined);
  return await Promise.race([answered.promise, died]).finally(() => child.off("message", listen));
}

function order(child: ChildProcess, word: AgentOrder): void {
  // To a dead process nothing can be said; whoever waits for its answer sees its end.
  if (child.connected) child.send(word, () => {});
}
