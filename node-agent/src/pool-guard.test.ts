import { expect, test } from "vitest";
import { type PoolCall, createPoolGuard } from "./pool-guard.ts";

const never: PoolCall<string> = () => undefined;
const atOnce: PoolCall<string> = (done) => done(null, "names");

test("a path whose former reading hangs is skipped, its neighbours and other storages are read", async () => {
  const guard = createPoolGuard(5);
  let asked = 0;
  const hanging: PoolCall<string> = () => void (asked += 1);
  for (let inventory = 0; inventory < 10; inventory += 1)
    expect(await guard.ask("storage nfs", "/mnt/pve/nfs/template/cache", 10, hanging)).toEqual({
      kind: "unresponsive",
    });
  expect(asked).toBe(1);
  expect(await guard.ask("storage nfs", "/mnt/pve/nfs/dump", 10, atOnce)).toEqual({ kind: "answered", value: "names" });
  expect(await guard.ask("storage local", "/var/lib/vz", 10, atOnce)).toEqual({ kind: "answered", value: "names" });
});

test("what fails in time tells why", async () => {
  const error = new Error("no such directory");
  const answer = await createPoolGuard(5).ask<string>("g", "p", 10, (done) => done(error, ""));
  expect(answer).toEqual({ kind: "failed", error });
});

test("even a pool of one thread asks, one question at a time", async () => {
  const guard = createPoolGuard(1);
  expect(await guard.ask("a", "p", 10, atOnce)).toMatchObject({ kind: "answered" });
  expect(await guard.ask("a", "p", 10, never)).toEqual({ kind: "unresponsive" });
  expect(await guard.ask("b", "q", 10, atOnce)).toEqual({ kind: "unresponsive" });
});
