import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { exitOf } from "./processes.ts";
import type { ReplicaOrder, ReplicaWord, ReplicaWork } from "./story-control-plane-process.ts";

const programPath = fileURLToPath(new URL("./story-control-plane-process.ts", import.meta.url));

/** A replica's ingest and roll-ups in the time of a story. */
export interface StoryReplica {
  start(): Promise<void>;
  /** Tells what time it is, and returns when it is known or the replica does not run. */
  setNow(nowMs: number): Promise<void>;
  /** Ends it with SIGKILL. */
  kill(): Promise<void>;
  /** What its passes failed with, the newest last. */
  failures(): readonly string[];
}

/** Makes the replica. */
export function storyReplica(work: Omit<ReplicaWork, "nowMs">, firstMs: number): StoryReplica {
  let nowMs = firstMs;
  let child: ChildProcess | undefined;
  const failures: string[] = [];
  return {
    async start() {
      const started = fork(programPath, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
      started.setMaxListeners(0); // everybody who waits for an answer also waits for its end
      await Promise.race([once(started, "message"), exitOf(started)]);
      started.on("message", (word: ReplicaWord) => {
        if (typeof word === "object" && "failed" in word) failures.push(word.failed);
      });
      child = started;
      await say(started, { begin: { ...work, nowMs } }, nowMs);
    },
    async setNow(atMs) {
      nowMs = atMs;
      if (child !== undefined) await say(child, { nowMs: atMs }, atMs);
    },
    async kill() {
      const dying = child;
      child = undefined;
      if (dying === undefined) return;
      dying.kill("SIGKILL");
      await exitOf(dying);
    },
    failures: () => failures,
  };
}

/** Says something and waits until it is heard, or nobody is there to hear it. */
async function say(child: ChildProcess, order: ReplicaOrder, atMs: number): Promise<void> {
  const heard = Promise.withResolvers<void>();
  const listen = (word: ReplicaWord): void => {
    if (typeof word === "object" && "heardMs" in word && word.heardMs >= atMs) heard.resolve();
  };
  child.on("message", listen);
  if (child.connected) child.send(order, () => {});
  await Promise.race([heard.promise, exitOf(child)]).finally(() => child.off("message", listen));
}
