import { stat, statfs } from "node:fs";
import { tmpdir } from "node:os";
import { expect, test } from "vitest";
import { CLUSTER_GROUP, createPoolGuard } from "../pool-guard.ts";
import { type FilesystemCalls, createFilesystemProbe } from "./filesystem-probe.ts";

/** The kernel, except that some paths hang until they are released. */
function kernelWithHungPaths(): FilesystemCalls & { asked: string[]; hang(path: string): void; release(): void } {
  const hung = new Set<string>();
  let held: (() => void)[] = [];
  const asked: string[] = [];
  const orHang = (path: string, call: () => void): void => {
    if (hung.has(path)) held.push(call);
    else call();
  };
  return {
    asked,
    hang: (path) => hung.add(path),
    release() {
      hung.clear();
      for (const call of held) call();
      held = [];
    },
    stat: (_, done) => stat(tmpdir(), { bigint: true }, done),
    statfs(path, done) {
      asked.push(path);
      orHang(path, () => statfs(tmpdir(), { bigint: true }, done));
    },
  };
}

test("a real file system tells its size and device", async () => {
  const probe = createFilesystemProbe();
  const device = await probe.device("tmp", tmpdir(), 2000);
  expect(device).toEqual({ kind: "answered", device: expect.stringMatching(/^\d+:\d+$/u) });
  const answer = await probe.size("tmp", tmpdir(), 2000);
  expect(answer).toMatchObject({ kind: "answered", totalBytes: expect.any(BigInt) });
});

test("a path that is not there fails at once", async () => {
  const answer = await createFilesystemProbe().size("none", "/nowhere/at/all", 2000);
  expect(answer).toEqual({ kind: "failed", code: "ENOENT" });
});

test("a hung mount costs its own answer; its neighbours on the storage and all others answer", async () => {
  const kernel = kernelWithHungPaths();
  const probe = createFilesystemProbe(createPoolGuard(5), kernel);
  kernel.hang("a");
  const kinds = async (...paths: string[]): Promise<string[]> => {
    const answers = await Promise.all(paths.map((path) => probe.size("storage", path, 30)));
    return answers.map(({ kind }) => kind);
  };
  expect(await kinds("a", "b", "c")).toEqual(["unresponsive", "answered", "answered"]);
  const other = await probe.size("other storage", "d", 30);
  expect(other.kind).toBe("answered");
  kernel.asked.length = 0;
  expect(await kinds("a", "b")).toEqual(["unresponsive", "answered"]);
  expect(kernel.asked).toEqual(["b"]);
});

test("a storage with two hung mounts is not asked again until one of them answers", async () => {
  const kernel = kernelWithHungPaths();
  const probe = createFilesystemProbe(createPoolGuard(5), kernel);
  kernel.hang("a");
  kernel.hang("b");
  const ask = (path: string) => probe.size("storage", path, 20);
  await Promise.all(["a", "b"].map(ask));
  kernel.asked.length = 0;
  expect(await ask("c")).toEqual({ kind: "unresponsive" });
  expect(kernel.asked).toEqual([]);
  const elsewhere = await probe.size("other storage", "d", 2000);
  expect(elsewhere.kind).toBe("answered");
  kernel.release();
  await expect.poll(async () => (await ask("c")).kind, { timeout: 20_000 }).toBe("answered");
  await expect.poll(async () => (await ask("a")).kind, { timeout: 20_000 }).toBe("answered");
});

test("however many storages hang, one thread is left to others and one to the cluster file system", async () => {
  const kernel = kernelWithHungPaths();
  const probe = createFilesystemProbe(createPoolGuard(5), kernel);
  const paths = ["a", "b", "c", "d", "e", "f"];
  for (const path of [...paths, "g", "h"]) kernel.hang(path);
  const answers = await Promise.all(paths.map((path) => probe.size(`storage ${path}`, path, 20)));
  expect(answers.every(({ kind }) => kind === "unresponsive")).toBe(true);
  expect(kernel.asked).toEqual(["a", "b", "c"]);
  const cluster = (path: string) => probe.size(CLUSTER_GROUP, path, 20);
  expect((await cluster("members")).kind).toBe("answered");
  expect((await cluster("g")).kind).toBe("unresponsive");
  expect((await cluster("h")).kind).toBe("unresponsive");
  expect(kernel.asked).toEqual(["a", "b", "c", "members", "g"]);
});
