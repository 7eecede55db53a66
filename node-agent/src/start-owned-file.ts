import { rmSync } from "node:fs";
import { join } from "node:path";
import { writeDurableFile } from "./durable-file.ts";
import { readIfThere } from "./enrolment/identity-files.ts";

/** The control file by which `cloudpods-agent start-owned` reaches the running agent or the next one. */
function pathIn(stateDir: string): string {
  return join(stateDir, "start-owned");
}

/** Asks the agent to start its containers in this boot of the host without the control plane. */
export function requestStartOwned(stateDir: string, bootId: string): void {
  writeDurableFile(pathIn(stateDir), `${bootId}\n`, 0o600);
}

const lookIntervalMs = 1_000;

/** What the watch for an operator's request needs. */
export interface StartOwnedWatch {
  readonly stateDir: string;
  /** A request made in another boot is not obeyed. */
  readonly bootId: string;
  readonly isAwaiting: () => boolean;
  readonly onRequest: () => void;
}

/**
 * Looks for the operator's request for as long as the agent waits for the control plane.
 *
 * @returns ends the watch
 */
export function watchStartOwned({ stateDir, bootId, isAwaiting, onRequest }: StartOwnedWatch): () => void {
  const timer = setInterval(() => {
    const request = readIfThere(pathIn(stateDir));
    if (isAwaiting() && request === undefined) return;
    if (!isAwaiting()) clearInterval(timer);
    rmSync(pathIn(stateDir), { force: true });
    if (request?.trim() === bootId && isAwaiting()) onRequest();
  }, lookIntervalMs);
  return () => clearInterval(timer);
}
