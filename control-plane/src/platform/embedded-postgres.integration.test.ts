import { chmod, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { freePort } from "../../../test/support/free-port.ts";
import { until } from "../../../test/support/until.ts";
import { EmbeddedPostgresInUse, startEmbeddedPostgres } from "./embedded-postgres.ts";
import { canConnect } from "./migrate.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "cloudpods-embedded-"));
  await chmod(directory, 0o711);
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const start = (name: string) => startEmbeddedPostgres({ directory: join(directory, name), volatile: true });

test("a directory is one owner's until he stops", async () => {
  const first = await start("a");
  await expect(start("a")).rejects.toThrow(EmbeddedPostgresInUse);
  expect(await canConnect(first.superuserUrl)).toBe(true);
  await first.stop();
  const second = await start("a");
  await second.stop();
});

test("a port that somebody takes before the server does is left to him", async () => {
  const other = await start("other");
  const ports = [other.port, await freePort()];
  const choosePort = async () => ports.shift() ?? 0;
  const server = await startEmbeddedPostgres({ directory: join(directory, "mine"), volatile: true, choosePort });
  expect(await Promise.all([other, server].map(({ superuserUrl }) => canConnect(superuserUrl)))).toEqual([true, true]);
  await Promise.all([other.stop(), server.stop()]);
});

test("a number in the file of a dead server that is another server's now does not end that one", async () => {
  const other = await start("other");
  await (await start("mine")).stop();
  const file = await readFile(join(directory, "other", "data", "postmaster.pid"), "utf8");
  await writeFile(join(directory, "mine", "data", "postmaster.pid"), file, { mode: 0o644 });
  // PostgreSQL itself may refuse to start over the file; what counts is who is left alone.
  await start("mine").then(
    (server) => server.stop(),
    () => {},
  );
  expect(await canConnect(other.superuserUrl)).toBe(true);
  await other.stop();
});

test("a server that is killed runs again under the same address, and does not after it was asked to end", async () => {
  const server = await start("killed");
  const pidFile = join(directory, "killed", "data", "postmaster.pid");
  const pid = async () => Number((await readFile(pidFile, "utf8").catch(() => "")).split("\n")[0]);
  const before = await pid();
  process.kill(before, "SIGKILL");
  await until("another server", async () => ![before, 0].includes(await pid()), 60_000);
  await until("an answer", () => canConnect(server.superuserUrl), 60_000);
  await server.stop();
  expect(await canConnect(server.superuserUrl)).toBe(false);
  // Whoever starts next finds nobody on the data.
  await (await start("killed")).stop();
});

test("a server that cannot start again is ended by its owner all the same", async () => {
  const server = await start("broken");
  const data = join(directory, "broken", "data");
  const pid = Number((await readFile(join(data, "postmaster.pid"), "utf8")).split("\n")[0]);
  await rename(join(data, "global"), join(data, "elsewhere"));
  process.kill(pid, "SIGKILL");
  await until("its end", async () => !(await canConnect(server.superuserUrl)));
  await server.stop();
  expect(await canConnect(server.superuserUrl)).toBe(false);
});
