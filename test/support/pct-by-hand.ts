import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { DemoHost } from "../../tools/demo/demo-hosts.ts";
import { until } from "./until.ts";

/** What `pct` ends with while other work holds the container or the template; who waits may go on. */
const BUSY = /CT is locked|can't lock file/;

/**
 * Runs `pct` on a host as its operator does, who tries again while the agent is at work on the same container.
 *
 * @returns what it printed
 * @throws what it ended with, but for a lock that is given back within a minute
 */
export async function pctByHand(host: DemoHost, ...argv: string[]): Promise<string> {
  return await until(`pct ${argv.join(" ")}`, async () => {
    try {
      return { stdout: (await promisify(execFile)(host.simulated.paths.pct, argv)).stdout };
    } catch (error) {
      if (error instanceof Error && BUSY.test(error.message)) return undefined;
      throw error;
    }
  }).then(({ stdout }) => stdout);
}
