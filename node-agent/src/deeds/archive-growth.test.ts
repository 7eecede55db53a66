import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { until } from "../../../test/support/until.ts";
import type { ContainerProgress } from "../containers/containers.ts";
import { tellingGrowth } from "./archive-growth.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "archive-growth-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const now = "vzdump-lxc-102-2026_11_21-00_35_12";
const write = (name: string, bytes: number): void => writeFileSync(join(folder, name), Buffer.alloc(bytes));

/** What is told while an archive is made. */
async function told(work: (reports: readonly ContainerProgress[]) => Promise<void>): Promise<ContainerProgress[]> {
  const reports: ContainerProgress[] = [];
  const making = async (onLine: (line: string) => void): Promise<void> => {
    onLine(`INFO: creating vzdump archive '${folder}/${now}.tar.zst'`);
    await work(reports);
    onLine("INFO: archive file size: 1KB");
  };
  await tellingGrowth({ storage: "local", vmid: 102 }, (progress) => reports.push(progress), making, 5);
  return reports;
}

test("an archive is as far as it has grown against the container's last one, and never back or done", async () => {
  write("vzdump-lxc-102-2026_11_19-00_00_00.tar.zst", 400);
  write("vzdump-lxc-102-2026_11_20-00_00_00.tar.zst", 4_000_000);
  write("vzdump-lxc-102-2026_11_20-00_00_00.tar.zst.notes", 36);
  write("vzdump-lxc-103-2026_11_20-00_00_00.tar.zst", 10);
  const reports = await told(async (soFar) => {
    const grow = async (bytes: number, percent: number): Promise<void> => {
      write(`${now}.tar.dat`, bytes);
      await until("a look", () => soFar.at(-1)?.percent === percent);
    };
    await grow(2_000_000, 50);
    write(`${now}.tar.dat`, 1_000_000);
    await pause(50);
    // A storage that is away for some looks.
    renameSync(folder, `${folder}.away`);
    writeFileSync(folder, "");
    await pause(50);
    rmSync(folder);
    renameSync(`${folder}.away`, folder);
    await grow(9_000_000, 95);
  });
  expect(reports.map(({ percent }) => percent)).toEqual([0, 50, 95, 95]);
  expect(reports[1]).toEqual({
    step: "vzdump",
    percent: 50,
    detail: "2 MB are written; the last archive has 4 MB",
  });
  expect(reports[3]?.detail).toContain("file size");
});

test("of the first archive of a container nothing is known", async () => {
  write("vzdump-lxc-103-2026_11_20-00_00_00.tar.zst", 10);
  const reports = await told(async () => {
    write(`${now}.tar.dat`, 2_000_000);
    await pause(50);
  });
  expect(reports.map(({ percent }) => percent)).toEqual([0, 0]);
});
