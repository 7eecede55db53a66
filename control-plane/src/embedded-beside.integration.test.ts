import { type ChildProcess, spawn } from "node:child_process";
import { chmod, mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { builtPrograms } from "../../test/support/built-programs.ts";
import { compileCache } from "../../test/support/compile-cache.ts";
import { freePort } from "../../test/support/free-port.ts";
import { exitOf, processesAbout } from "../../test/support/processes.ts";
import { until } from "../../test/support/until.ts";

let directory: string;
let environment: Record<string, string>;
let url: string;
const started: ChildProcess[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "cloudpods-beside-"));
  await chmod(directory, 0o711);
  const [http, gateway, broker] = await Promise.all([freePort(), freePort(), freePort()]);
  url = `http://127.0.0.1:${http}`;
  environment = {
    PATH: process.env["PATH"] ?? "",
    NODE_COMPILE_CACHE: compileCache,
    CLOUDPODS_DATA_DIR: directory,
    CLOUDPODS_HTTP_PORT: String(http),
    CLOUDPODS_GATEWAY_PORT: String(gateway),
    CLOUDPODS_BROKER_PORT: String(broker),
  };
});
afterEach(async () => {
  for (const child of started.splice(0)) {
    child.kill("SIGTERM");
    await exitOf(child);
  }
  expect(await processesAbout(directory)).toEqual([]);
  await rm(directory, { recursive: true, force: true });
});

/** `cloudpods …`, and what it said once it has ended. */
function start(
  args: readonly string[],
  input = "",
  how: { readonly detached?: boolean } = {},
): { child: ChildProcess; said: () => string } {
  const child = spawn(process.execPath, [builtPrograms().controlPlane, ...args], {
    env: environment,
    stdio: ["pipe", "pipe", "pipe"],
    ...how,
  });
  started.push(child);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (said += chunk.toString()));
  child.stdin.end(input);
  return { child, said: () => said };
}

async function run(args: readonly string[], input = ""): Promise<{ code: number | string; said: string }> {
  const { child, said } = start(args, input);
  const code = await new Promise<number | string>((resolve) =>
    child.once("close", (exit, signal) => resolve(exit ?? signal ?? -1)),
  );
  return { code, said: said() };
}

async function serve(): Promise<ChildProcess> {
  const { child, said } = start(["serve"]);
  await until("the control plane", () => isReady(child, said), 60_000);
  return child;
}

async function isReady(child: ChildProcess, said: () => string): Promise<boolean> {
  if (child.exitCode !== null) throw new Error(`serve ended: ${said().slice(-2_000)}`);
  return await fetch(`${url}/readyz`).then(
    ({ ok }) => ok,
    () => false,
  );
}

async function signIn(email: string, password: string): Promise<number> {
  const answer = await fetch(`${url}/api/auth/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ email, password }),
  });
  return answer.status;
}

const createUser = (email: string) =>
  run(["admin", "create-user", "--email", email, "--email-verified"], "a good password 1\n");

/** Process ids of the servers on this directory. */
async function servers(): Promise<number[]> {
  const found = await processesAbout(directory);
  return found.filter(({ commandLine }) => commandLine.includes("-D")).map(({ pid }) => pid);
}

test("a command beside a running control plane uses its database and leaves it running", async () => {
  const running = await serve();
  const before = await servers();
  expect(before).toHaveLength(1);
  expect((await stat(join(directory, "database-logins.json"))).mode & 0o777).toBe(0o600);
  expect(await createUser("beside@example.test")).toMatchObject({ code: 0 });
  expect(await run(["migrate"])).toEqual({ code: 0, said: "The schema is up to date.\n" });
  expect(await servers()).toEqual(before);
  expect(await signIn("beside@example.test", "a good password 1")).toBe(200);
  const second = await run(["serve"]);
  expect(second.code).toBe(1);
  expect(second.said).toContain("another process runs the embedded PostgreSQL");
  expect((await fetch(`${url}/readyz`)).status).toBe(200);
  running.kill("SIGTERM");
  expect(await exitOf(running)).toBe(0);
  await expect(stat(join(directory, "database-logins.json"))).rejects.toThrow("ENOENT");
});

test("the server of a control plane that was killed is ended, its data used; two commands wait for each other", async () => {
  const killed = await serve();
  killed.kill("SIGKILL");
  await exitOf(killed);
  const left = await servers();
  expect(left).toHaveLength(1);
  const made = await Promise.all([createUser("one@example.test"), createUser("two@example.test")]);
  expect(made).toMatchObject([{ code: 0 }, { code: 0 }]);
  expect(await servers()).toEqual([]);
  await serve();
  expect(await servers()).not.toEqual(left);
  expect(await signIn("one@example.test", "a good password 1")).toBe(200);
  expect(await signIn("two@example.test", "a good password 1")).toBe(200);
});

test("Ctrl-C reaches the whole process group of a terminal, and yet the server ends last", async () => {
  const { child, said } = start(["serve"], "", { detached: true });
  await until("the control plane", () => isReady(child, said), 60_000);
  process.kill(-(child.pid ?? Number.NaN), "SIGINT");
  expect(await exitOf(child)).toBe(0);
  expect(said()).not.toMatch(/did not stop cleanly|does not stop|terminating connection|shutting down/);
  expect(await servers()).toEqual([]);
});

test("a command that is interrupted leaves no server behind", async () => {
  const { child } = start(["admin", "create-user", "--email", "x@example.test"], "a good password 1\n");
  await until("its server", async () => (await servers()).length === 1);
  child.kill("SIGTERM");
  await exitOf(child);
  // The last of its processes may still be on its way out.
  await until("the end of its server", async () => (await servers()).length === 0);
});
