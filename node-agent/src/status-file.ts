import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readIfThere } from "./enrolment/identity-files.ts";
import type { LinkState } from "./link/gateway-link.ts";

/** What a running agent lets `cloudpods-agent status` read. */
export interface AgentStatus {
  readonly pid: number;
  readonly agentVersion: string;
  readonly bootId: string;
  /** RFC 3339. */
  readonly startedAt: string;
  readonly changedAt: string;
  readonly link: LinkState;
}

function pathIn(stateDir: string): string {
  return join(stateDir, "status.json");
}

/** Replaces the status; it is worth nothing after a crash and so need not be flushed. */
export function writeStatus(stateDir: string, status: AgentStatus): void {
  const beside = `${pathIn(stateDir)}.tmp`;
  writeFileSync(beside, `${JSON.stringify(status, null, 2)}\n`, { mode: 0o600 });
  renameSync(beside, pathIn(stateDir));
}

/** The status that the last agent wrote, as JSON; undefined when none ever did. */
export function readStatus(stateDir: string): unknown {
  const text = readIfThere(pathIn(stateDir));
  return text === undefined ? undefined : JSON.parse(text);
}
