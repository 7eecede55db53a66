import { DatabaseSync } from "node:sqlite";

/** A lock that this process holds until `release` or its end. */
export interface FileLock {
  release(): void;
}

/**
 * Takes the lock of that file, making the file if need be; undefined while another process holds it. SQLite's
 * exclusive lock is a record lock of the kernel: it ends with the process however that dies, is never to be
 * broken, and holds between containers that share the file but neither process ids nor a network.
 * @throws when the file cannot be made or written
 */
export function tryLockFile(path: string): FileLock | undefined {
  const database = new DatabaseSync(path, { timeout: 0 });
  try {
    database.exec("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if (error instanceof Error && error.message.includes("locked")) return undefined;
    throw error;
  }
  return { release: () => database.close() };
}
