import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { join } from "node:path";

const memory = "/dev/shm";
const prefix = "cloudpods-test-";
/** Servers, spools and hosts of all tests together need less than half of it. */
const leastFreeBytes = 6 * 1024 ** 3;

/**
 * Lets this process and all that it starts keep temporary files in memory, in a folder that goes with this
 * process; not where the machine has too little. A simulated host replaces hundreds of small files a second,
 * and a disk brings each of them to safety.
 */
export function keepTemporaryFilesInMemory(): void {
  if (!isUsable()) return;
  removeLeftFolders();
  const folder = join(memory, `${prefix}${process.pid}`);
  // Database servers run as somebody else and must get through.
  mkdirSync(folder, { recursive: true, mode: 0o711 });
  process.env["TMPDIR"] = folder;
  process.on("exit", () => remove(folder));
}

function isUsable(): boolean {
  if (!existsSync(memory)) return false;
  const { bavail, bsize } = statfsSync(memory);
  const [, , , options = ""] = /^\S+ (\/dev\/shm) (\S+) (\S+)/mu.exec(readFileSync("/proc/mounts", "utf8")) ?? [];
  // Programs of hosts are started from there.
  const isForbidden = options.split(",").some((option) => option === "noexec" || option === "ro");
  return bavail * bsize >= leastFreeBytes && !isForbidden;
}

/** Of runs that were killed. */
function removeLeftFolders(): void {
  for (const name of readdirSync(memory)) {
    const pid = name.startsWith(prefix) ? name.slice(prefix.length) : "";
    if (/^\d+$/u.test(pid) && !existsSync(`/proc/${pid}`)) remove(join(memory, name));
  }
}

function remove(folder: string): void {
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
}
