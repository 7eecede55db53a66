import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";

/**
 * Replaces `path` by `content` so that a crash leaves either the old file or the whole new one:
 * written beside it, flushed, renamed, and the directory flushed too.
 */
export function writeDurableFile(path: string, content: string, mode: number): void {
  const beside = `${path}.tmp`;
  // A leftover of a crash might carry a wider mode; O_CREAT would keep it.
  rmSync(beside, { force: true });
  const file = openSync(beside, "wx", mode);
  try {
    writeSync(file, content);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameDurably(beside, path);
}

/** Renames inside one directory and flushes the directory, so that the new name survives a power cut. */
export function renameDurably(from: string, to: string): void {
  renameSync(from, to);
  const directory = openSync(dirname(to), "r");
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
