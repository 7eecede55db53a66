import { readFileSync } from "node:fs";
import { errorCode } from "./failure.ts";

/**
 * The start time of a real process in clock ticks since the machine's boot, or undefined when it has
 * ended. One that ended but was never waited for counts as ended.
 */
export function processStart(pid: number): bigint | undefined {
  const stat = readProcessStat(pid);
  // The name in parentheses may hold anything. Behind it are the state and, as the 20th field, the
  // start (proc(5)).
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  const start = fields?.[19];
  return start === undefined || fields?.[0] === "Z" ? undefined : BigInt(start);
}

function readProcessStat(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ESRCH") return undefined;
    throw error;
  }
}
