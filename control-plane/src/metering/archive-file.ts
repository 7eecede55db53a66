import { createHash, randomUUID } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import type pg from "pg";
import { to as copyTo } from "pg-copy-streams";

/** A written archive. */
export interface ArchivedFile {
  readonly path: string;
  /** Of the file as it lies on the disk. */
  readonly sha256: Buffer;
}

/**
 * Writes what a query gives as gzipped CSV with a header. The file appears under its name when it is whole
 * and on the disk, and `confirm` has not thrown; writing it again replaces it. A connection of its own, because COPY
 * waits for each answer.
 *
 * @param query of this program, without parameters: COPY takes none.
 */
export async function writeArchive(
  client: pg.Client,
  directory: string,
  name: string,
  query: string,
  confirm: () => Promise<void>,
): Promise<ArchivedFile> {
  const path = join(directory, name);
  // Of one's own: somebody who has lost his turn may not know it yet.
  const temporary = `${path}.${randomUUID()}.part`;
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const hash = createHash("sha256");
  const digest = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      done(null, chunk);
    },
  });
  try {
    await pipeline(
      client.query(copyTo(`COPY (${query}) TO STDOUT (FORMAT csv, HEADER)`)),
      createGzip(),
      digest,
      createWriteStream(temporary, { mode: 0o600, flush: true }),
    );
    await confirm();
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  const folder = await open(dirname(path), "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
  return { path, sha256: hash.digest() };
}

/** SHA-256 of an archive as it lies on the disk; undefined when it is not there. */
export async function digestOfArchive(directory: string, name: string): Promise<Buffer | undefined> {
  const hash = createHash("sha256");
  try {
    await pipeline(createReadStream(join(directory, name)), hash);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined; // of the file system
    throw error;
  }
  return hash.digest();
}

/** Where the samples of an hour are archived. */
export function sampleArchiveName(hourStart: Date): string {
  const at = hourStart.toISOString();
  return `samples/${at.slice(0, 10)}/${at.slice(0, 13).replace("T", "-")}.csv.gz`;
}

/** Where the hours of a day are archived: "2026-01-05". */
export function hourArchiveName(day: string): string {
  return `hours/${day}.csv.gz`;
}

/** Where the days of a month are archived: "2026-01". */
export function dayArchiveName(yearMonth: string): string {
  return `days/${yearMonth}.csv.gz`;
}
