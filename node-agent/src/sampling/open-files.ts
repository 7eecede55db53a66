import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { codeOf } from "../agent-error.ts";

/** Reads the same small files again and again, and keeps them open meanwhile. */
export interface OpenFiles {
  /** The file's text from its beginning; undefined when what it speaks of has ended. */
  read(path: string): string | undefined;
  /** Closes every file that was not read since the last call. */
  closeUnread(): void;
  close(): void;
}

/**
 * Files kept open at most; more are opened for each reading. Six for each of a thousand containers,
 * and far below the limit that systemd gives to a service (524288).
 */
const MAX_OPEN = 8192;
/** The longest of these files, memory.stat, has less than 2 KiB; /proc/net/dev grows with the host. */
const FIRST_BUFFER_BYTES = 64 * 1024;

interface OpenFile {
  readonly descriptor: number;
  wasRead: boolean;
}

/**
 * Opening a kernel file costs three times as much as reading it (measured: 32 ms for 6000 files by
 * path, 9 ms through open descriptors). A descriptor of a cgroup, process or interface that has ended
 * answers with an error and never with its successor's figures.
 */
export function createOpenFiles(): OpenFiles {
  const files = new Map<string, OpenFile>();
  let buffer = Buffer.allocUnsafe(FIRST_BUFFER_BYTES);

  function readAll(descriptor: number): string {
    let length = readSync(descriptor, buffer, 0, buffer.length, 0);
    while (length === buffer.length) {
      buffer = Buffer.concat([buffer], buffer.length * 2);
      length += readSync(descriptor, buffer, length, buffer.length - length, length);
    }
    return buffer.toString("latin1", 0, length);
  }

  /** Undefined also for a file that has lost its name: another one may have taken it. */
  function readOpen(file: OpenFile): string | undefined {
    try {
      const text = readAll(file.descriptor);
      return fstatSync(file.descriptor).nlink === 0 ? undefined : text;
    } catch (error) {
      if (hasEnded(error)) return undefined;
      throw error;
    }
  }

  function openAndRead(path: string): string | undefined {
    let descriptor: number;
    try {
      descriptor = openSync(path, "r");
    } catch (error) {
      if (hasEnded(error)) return undefined;
      throw error;
    }
    if (files.size < MAX_OPEN) {
      const file = { descriptor, wasRead: true };
      files.set(path, file);
      return readOpen(file);
    }
    try {
      return readOpen({ descriptor, wasRead: true });
    } finally {
      closeSync(descriptor);
    }
  }

  function forget(path: string, file: OpenFile): void {
    files.delete(path);
    closeSync(file.descriptor);
  }

  return {
    read(path) {
      const file = files.get(path);
      if (file === undefined) return openAndRead(path);
      const text = readOpen(file);
      if (text !== undefined) {
        file.wasRead = true;
        return text;
      }
      forget(path, file);
      return openAndRead(path);
    },
    closeUnread() {
      for (const [path, file] of files) {
        if (!file.wasRead) forget(path, file);
        file.wasRead = false;
      }
    },
    close() {
      for (const [path, file] of files) forget(path, file);
    },
  };
}

function hasEnded(error: unknown): boolean {
  const code = codeOf(error);
  return code === "ENOENT" || code === "ESRCH" || code === "ENODEV";
}
