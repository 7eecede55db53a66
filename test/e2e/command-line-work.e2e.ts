import { afterAll, beforeAll, expect, test } from "vitest";
import { type CommandLine, openCommandLine } from "../support/command-line.ts";
import { pctByHand } from "../support/pct-by-hand.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { type Stack, startStack } from "../support/stack.ts";
import { until } from "../support/until.ts";

let database: TestDatabase;
let stack: Stack;
let commands: CommandLine;
let customer: Record<string, string>;
let operator: Record<string, string>;
beforeAll(async () => {
  database = await createTestDatabase();
  stack = await startStack({
    logins: database,
    hosts: ["pve1"],
    environment: { CLOUDPODS_INVENTORY_INTERVAL_SECONDS: "1" },
  });
  commands = await openCommandLine();
  customer = { CLOUDPODS_API_URL: stack.replicas[0].url, CLOUDPODS_TOKEN: stack.customerToken };
  operator = { CLOUDPODS_PROFILE: "ops" };
  await signIn();
});
afterAll(async () => {
  await stack.finish();
  await commands.close();
  await database.close();
});

async function signIn(): Promise<void> {
  const { adminEmail, password } = stack.credentials;
  const login = `login --url ${stack.replicas[0].url} --email ${adminEmail} --password-stdin --profile ops`;
  expect(await commands.run(login, { input: `${password}\n` })).toMatchObject({ code: 0 });
}

/** Runs a command that must succeed and gives what it says. */
async function said(args: string, env: Record<string, string>): Promise<string> {
  const ended = await commands.runPlaced(args, { env });
  expect(ended.code, `${args}: ${ended.err}`).toBe(0);
  return ended.out;
}

test("a pod, named by its hostname, is stopped, started, scaled, backed up and put back", async () => {
  const { pod } = await commands.json("pods create work-1 --plan STARTER --wait", customer);
  expect(await said("pods show work-1", customer)).toContain(pod.id);
  expect(await said("pods stop work-1 --wait", customer)).toMatch(
    /^work-1 \(\d+\): stop done; active, stopped on pve1/,
  );
  expect(await said("pods start work-1 --wait", customer)).toMatch(/: start done; active, running on pve1/);
  const scaled = await commands.json("pods scale work-1 --plan PREMIUM --wait", customer);
  expect(scaled).toMatchObject({ pod: { planCode: "CLOUD_POD_PREMIUM" }, task: { state: "succeeded" } });
  expect(await said("pods backup work-1 --note evening --wait", customer)).toMatch(/: backup done; /);
  const [backup] = (await commands.json("backups ls work-1", customer)).data;
  expect(backup).toMatchObject({ kind: "manual", state: "available", note: "evening" });
  // A host that is busy is not waited for: whoever is not answered asks again.
  await expect
    .poll(() => said(`pods restore work-1 ${backup.id} --dry-run`, customer), { timeout: 60_000 })
    .toMatch(
      /^work-1 \(\d+\) would be put back to [^]*\/pct shutdown [^]*\/pct restore \d+ [^]*\/pct start \d+\n[^]*Nothing was changed\.$/m,
    );
  expect(await said(`pods restore work-1 ${backup.id} --yes --wait`, customer)).toMatch(
    /: restore done; active, running/,
  );
});

test("the rules for backups and their storage are looked at and changed", async () => {
  expect(await said("backups plan-policy PREMIUM", customer)).toMatch(/CLOUD_POD_PREMIUM[^]*schedule: +off/);
  const changed = await commands.json("backups plan-policy CLOUD_POD_PREMIUM --every 12h --keep-daily 5", operator);
  expect(changed).toMatchObject({ everyHours: 12, keepDaily: 5 });
  expect(await commands.run("backups plan-policy CLOUD_POD_PREMIUM --every 1h", { env: customer })).toMatchObject({
    code: 5,
  });
  const own = await commands.json("backups policy work-1 --keep-daily 1", customer);
  expect(own).toMatchObject({ source: "tenant", everyHours: 12, keepDaily: 1 });
  expect(await commands.run("backups policy work-1 --every 1h", { env: customer })).toMatchObject({
    code: 4,
    err: expect.stringContaining("BACKUP_POLICY_BEYOND_PLAN"),
  });
  expect(await said("backups policy work-1 --as-plan", customer)).toMatch(/rules of: +the plan/);
  const { storages } = await commands.json("nodes show pve1", operator);
  const names = storages.map(({ name }: { name: string }) => name);
  expect(names).toContain("local");
  // The sign-in may be told before the command.
  expect(await said("--profile ops nodes backup-storage pve1 local", {})).toBe(
    "pve1: backups of its pods go to local.\n",
  );
  expect((await commands.run("nodes backup-storage pve1")).code).toBe(2);
  expect(await said("nodes show pve1", operator)).toMatch(/backups: +go to local/);
  expect(await said("nodes backup-storage pve1 --auto", operator)).toBe("pve1: no storage is chosen for backups.\n");
});

test("an operator's list of all pods heeds every filter", async () => {
  const hostnames = async (filters: string): Promise<string[]> =>
    (await commands.json(`pods ls --all ${filters}`, operator)).data.map((pod: { hostname: string }) => pod.hostname);
  expect(await hostnames("--plan PREMIUM --region local --status active")).toEqual(["work-1"]);
  expect(await hostnames("--plan STARTER")).toEqual([]);
  expect(await hostnames("--region elsewhere")).toEqual([]);
  expect(await said("nodes show pve1", operator)).toMatch(/work-1[^]*active/);
});

test("an operator is shown what a container is, and gives it to a tenant by name", async () => {
  const pct = async (...argv: string[]) => pctByHand(stack.host("pve1"), ...argv);
  await pct("clone", "9000", "555", "--hostname", "legacy");
  await pct("set", "555", "--net0", "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:0A:0B:0C,ip=10.9.8.7/24,gw=10.9.8.1");
  await pct("start", "555");
  const told = await until("the container is noticed", async () => {
    const lines = (await said("nodes findings --kind unmanaged", operator)).split("\n");
    return lines.find((line) => line.includes(" 555 ") && line.includes("power running"));
  });
  expect(told).toMatch(/unmanaged .* adopt, dismiss .* disk \d+ GB, hostname legacy, address 10\.9\.8\.7/);
  const adopt = "pods adopt 555 --node pve1 --wait --to";
  expect(await commands.run(`${adopt} nobody`, { env: operator })).toMatchObject({
    code: 3,
    err: expect.stringContaining("There is no tenant nobody (see cloudpods tenants ls)"),
  });
  const { tenantId } = stack.credentials;
  expect(await said("tenants ls", operator)).toMatch(new RegExp(`^demo +Demo Ltd +active +${tenantId}$`, "m"));
  expect(await said(`${adopt} demo`, operator)).toMatch(/^legacy \(555\): adopt done; active, running on pve1/);
  expect(await said("pods ls --all", operator)).toMatch(/legacy .* demo$/m);
  expect(await commands.json("quota --tenant demo", operator)).toMatchObject({ tenantId, usage: { pods: 2 } });
});

test("a test of provisioning leaves nothing, also when it is interrupted", async () => {
  const proof = await commands.json("provision-test STARTER", customer);
  expect(proof).toMatchObject({
    pod: { node: "pve1" },
    health: { healthy: true },
    steps: [{ step: "create" }, { step: "destroy" }],
  });
  for (const interruptWith of ["SIGINT", "SIGTERM"] as const) {
    const interruption = { interruptAt: / create \d+ % /, interruptWith };
    const ended = await commands.runPlaced("provision-test STARTER", { env: customer, ...interruption });
    expect(ended).toMatchObject({ code: 130, out: "" });
    expect(ended.err).toMatch(
      /^cloudpods: Interrupted; provision-test-\S+ \(\d+\) is being destroyed, watch it with: /m,
    );
  }
  await until("the pod is gone", async () => {
    const { data } = await commands.json("pods ls", customer);
    return data.every(({ hostname }: { hostname: string }) => !hostname.startsWith("provision-test"));
  });
});
