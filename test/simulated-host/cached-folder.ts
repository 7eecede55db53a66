import { createHash } from "node:crypto";
import { existsSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

/** The folder of a cache for what is made from these files as they are now, with this Node.js. */
export function cachedFolder(cache: string, files: readonly string[]): string {
  const hash = createHash("sha256").update(process.version);
  for (const path of files.toSorted()) hash.update(`${path}\0`).update(readFileSync(path));
  return join(cache, hash.digest("hex").slice(0, 24));
}

/** Gives what was made its name. Of two processes that make the same at once, the one that ends last uses the other's. */
export function keepMade(half: string, folder: string): void {
  try {
    renameSync(half, folder);
  } catch (error) {
    rmSync(half, { recursive: true, force: true });
    if (!existsSync(folder)) throw error;
  }
}
