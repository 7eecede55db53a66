import { ContainerSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { expect, test } from "vitest";
import { PROXMOX_PATHS } from "../pct/host-paths.ts";
import type { OperationRunner } from "../pct/operation-runner.ts";
import { requireRoomBeside, withRoomBeside } from "./room.ts";

const gibKib = 2 ** 20;

/** A host whose storage says how much it has used of its size. */
function host(usedGb: number, state = "active", totalGb = 100) {
  const figures = [totalGb, usedGb, totalGb - usedGb].map((gb) => Math.ceil(gb * gibKib)).join(" ");
  const stdout = `Name Type Status Total Used Available %\nthin lvmthin ${state} ${figures} 0.00%\n`;
  const asked: string[] = [];
  const runner: OperationRunner = {
    start: async ({ argv, ...request }) => {
      asked.push(argv.slice(1).join(" "));
      return await Promise.resolve({
        record: { ...request, argv, bootId: "" },
        isAlive: () => Promise.resolve(false),
        wait: () => Promise.resolve({ kind: "exited", exitCode: 0 }),
        terminate: () => Promise.resolve(true),
        output: () => Promise.resolve({ stdout, stderr: "" }),
        forget: () => undefined,
      });
    },
    attach: () => Promise.resolve(undefined),
    recorded: () => [],
    forgetEnded: () => Promise.resolve(),
  };
  const disk = (diskGb: number) => ({ vmid: 102, spec: ContainerSpec.fromPartial({ storage: "thin", diskGb }) });
  const { signal } = new AbortController();
  const doors = { paths: PROXMOX_PATHS, runner, promisedRoom: new Map<string, bigint>() };
  const restore = <T>(diskGb: number, work: () => Promise<T>): Promise<T> =>
    withRoomBeside(disk(diskGb), signal, doors, work);
  const ask = (diskGb: number): Promise<void> => requireRoomBeside(disk(diskGb), signal, doors);
  return { asked, restore, ask };
}

const done = () => Promise.resolve("done");

test("a disk fits to the last byte, by what its storage alone says", async () => {
  const { restore, asked } = host(90);
  expect(await restore(10, done)).toBe("done");
  expect(asked).toEqual(["status --storage=thin --content=rootdir"]);
  const refused = host(90 + 1 / gibKib).restore(10, done);
  const full = {
    code: "STORAGE_FULL",
    retryable: false,
    message: expect.stringContaining("has 9 GB left; the backup"),
  };
  await expect(refused).rejects.toMatchObject(full);
  const unknown = { code: "STORAGE_UNAVAILABLE", retryable: true };
  await expect(host(0, "inactive").restore(10, done)).rejects.toMatchObject(unknown);
  expect(await host(0, "active", 0).restore(10, done), "it has no size to tell").toBe("done");
});

test("what one restore is about to fill another one does not count on, until it has ended, however", async () => {
  const { restore } = host(85);
  const { promise, reject } = Promise.withResolvers<string>();
  const first = restore(10, () => promise);
  const later = {
    code: "STORAGE_FULL",
    retryable: true,
    message: expect.stringContaining("15 GB left, 10 GB of them"),
  };
  await expect(restore(6, done)).rejects.toMatchObject(later);
  expect(await restore(5, done)).toBe("done");
  reject(new Error("tar: broken"));
  await expect(first).rejects.toThrow("broken");
  expect(await restore(15, done)).toBe("done");
});

test("whoever only asks is told of what is promised and is promised nothing, not for an instant", async () => {
  const { restore, ask } = host(85);
  const { promise, resolve } = Promise.withResolvers<string>();
  const [asked, first] = [ask(15), restore(15, () => promise)];
  await asked;
  await expect(ask(1)).rejects.toMatchObject({ code: "STORAGE_FULL", retryable: true });
  resolve("done");
  expect(await first).toBe("done");
  await ask(15);
});
