import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { AgentError, messageOf } from "./agent-error.ts";

/** A held state directory. */
export interface StateLock {
  release(): void;
}

/** `cloudpods-agent status` holds the lock for an instant to learn whether an agent runs. */
const lockPatienceMs = 500;

/**
 * Takes a state directory for this process, making it if need be. SQLite's exclusive lock is a record
 * lock of the kernel, so it ends with the process however that dies and never has to be broken.
 *
 * @throws AgentError STATE_DIR_IN_USE when another agent holds it, STATE_DIR_UNUSABLE otherwise.
 */
export function lockStateDir(stateDir: string): StateLock {
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    const database = new DatabaseSync(join(stateDir, "agent.lock"), { timeout: lockPatienceMs });
    try {
      database.exec("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE");
    } catch (error) {
      database.close();
      throw error;
    }
    return { release: () => database.close() };
  } catch (error) {
    if (/locked/.test(messageOf(error))) {
      throw new AgentError("STATE_DIR_IN_USE", `Another agent works with ${stateDir}.`, { cause: error });
    }
    throw new AgentError("STATE_DIR_UNUSABLE", `${stateDir}: ${messageOf(error)}`, { cause: error });
  }
}
