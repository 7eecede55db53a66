import { mkdtempSync, readdirSync, readlinkSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type OpenFiles, createOpenFiles } from "./open-files.ts";

let folder: string;
let path: string;
let files: OpenFiles;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "open-files-"));
  path = join(folder, "cpu.stat");
  files = createOpenFiles();
});

afterEach(() => {
  files.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Descriptors of this process that lie in the test's folder. */
function held(): number {
  return readdirSync("/proc/self/fd").filter((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`).startsWith(folder);
    } catch {
      return false;
    }
  }).length;
}

test("a file is read from its beginning each time, as long or short as it then is", () => {
  for (const text of ["usage_usec 1\n", "usage_usec 1000\n", "x", "y".repeat(300_000), ""]) {
    writeFileSync(path, text);
    expect(files.read(path)).toBe(text);
  }
  expect(held()).toBe(1);
});

test("a file replaced under its name is the new one, and one removed is no more", () => {
  writeFileSync(path, "old");
  expect(files.read(path)).toBe("old");
  writeFileSync(`${path}.new`, "new");
  renameSync(`${path}.new`, path);
  expect(files.read(path)).toBe("new");
  rmSync(path);
  expect(files.read(path)).toBeUndefined();
  expect(held()).toBe(0);
});

test("files that are not read any more are closed", () => {
  writeFileSync(path, "1");
  const other = join(folder, "other");
  writeFileSync(other, "2");
  files.read(path);
  files.read(other);
  files.closeUnread();
  expect(held()).toBe(2);
  files.read(path);
  files.closeUnread();
  expect(held()).toBe(1);
});
