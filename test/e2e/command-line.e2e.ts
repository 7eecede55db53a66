import { execFile } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { completionScripts } from "../../control-plane/cli/completion/shells.ts";
import { builtPrograms } from "../support/built-programs.ts";
import { type CommandLine, openCommandLine } from "../support/command-line.ts";
import { freePort } from "../support/free-port.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { type Stack, startStack } from "../support/stack.ts";

const program = builtPrograms().controlPlane;
let database: TestDatabase;
let stack: Stack;
let commands: CommandLine;
beforeAll(async () => {
  database = await createTestDatabase();
  stack = await startStack({ logins: database, hosts: ["pve1"] });
  commands = await openCommandLine();
});
afterAll(async () => {
  await stack.finish();
  await database.close();
  await commands.close();
});

const run = (...args: Parameters<CommandLine["run"]>) => commands.run(...args);
const json = (...args: Parameters<CommandLine["json"]>) => commands.json(...args);

test("a customer signs in, orders, looks, is refused, and signs out", async () => {
  const url = stack.replicas[0].url;
  expect(await run(`pods ls`, { env: { CLOUDPODS_API_URL: url } })).toMatchObject({ code: 5, out: "" });
  const { customerEmail, password } = stack.credentials;
  const login = `login --url ${url} --email ${customerEmail} --password-stdin`;
  expect(await run(login, { input: "not the password\n" })).toMatchObject({
    code: 5,
    err: expect.stringContaining("(SIGN_IN_FAILED)"),
  });
  expect(await run(login, { input: `${password}\n` })).toMatchObject({ code: 0 });
  const profiles = join(commands.home, "cloudpods/profiles.json");
  expect((await stat(profiles)).mode & 0o777).toBe(0o600);
  expect(await readFile(profiles, "utf8")).not.toContain(password);
  expect((await run("whoami")).out).toContain(customerEmail);

  const ordered = await commands.runPlaced("pods create shop-1 --plan STARTER --label tier=web --wait");
  expect(ordered.code, ordered.err).toBe(0);
  expect(ordered.out).toMatch(/^shop-1 \(\d+\): create done; active, running on pve1, 10\.[\d.]+\n$/);
  // No terminal: a line for each change, at the standard error.
  expect(ordered.err).toMatch(/^shop-1 \(\d+\) create 10 % create/m);
  expect(ordered.err).toMatch(/ 100 % activate/);

  const [pod] = (await json("pods ls")).data;
  expect((await run("pods ls")).out).toMatch(/^ *VMID +HOSTNAME +STATUS/);
  const shown = await stack.customer().request<object>("GET", `/api/cloud-pods/${pod.vmid}`);
  expect(await json(`pods show ${pod.vmid}`)).toEqual(shown);
  expect(await json(`pods show ${pod.id}`)).toEqual(shown);
  expect((await run(`why ${pod.vmid}`)).out).toContain(`shop-1 (${pod.vmid}) is on pve1`);
  await expect
    .poll(async () => (await run("provision-test STARTER --dry-run")).out, busy)
    .toMatch(/Quota: allows it[^]*pct clone/);
  expect((await json("quota")).usage).toMatchObject({ pods: 1 });
  expect((await run("usage")).out).toContain("shop-1");

  await Promise.all(
    refusals.map(async ([args, code, says]) => {
      const ended = await run(args);
      expect(ended, args).toMatchObject({ code, out: args.includes("--dry-run") ? expect.any(String) : "" });
      expect(ended.err, args).toContain(says);
    }),
  );
  expect(await run(`pods destroy ${pod.vmid}`)).toMatchObject({ code: 2, err: expect.stringContaining("--yes") });
  const destroyed = await json(`pods destroy ${pod.vmid} --yes --wait`);
  expect(destroyed).toMatchObject({ pod: { status: "deleted" }, task: { state: "succeeded" } });

  expect(await run("logout")).toMatchObject({ code: 0 });
  expect(await run("pods ls", { env: { CLOUDPODS_API_URL: url } })).toMatchObject({ code: 5 });
}, 300_000);

/** A control plane or host that is busy is not waited for: whoever is not answered asks again. */
const busy = { timeout: 60_000 };

const refusals = [
  ["pods show 1", 3, "cloudpods: There is no such pod. (POD_NOT_FOUND)\n"],
  ["pods show 1 --json", 3, '"detail":"There is no such pod."'],
  ["pods create a_b --plan STARTER", 4, "/hostname: must be a DNS label"],
  ["pods create a --cores 33 --memory 1G --disk 8G", 6, "(NO_CAPACITY)"],
  ["pods create a --cores 41 --memory 1G --disk 8G --dry-run", 6, "(QUOTA_EXCEEDED)"],
  ["nodes ls", 5, "(PLATFORM_ROLE_REQUIRED)"],
  ["pods create a", 2, "--plan"],
  ["pods ls --all --tenant acme", 2, "cannot be used with"],
  ["tasks ls --all --state queued", 2, "cannot be used with"],
  ["tasks ls --all --type create", 2, "cannot be used with"],
  ["pods scale one --plan PREMIUM", 3, "No pod has the hostname one"],
  ["pods scale a_b --plan PREMIUM", 2, "VMID"],
] as const;

test("work that fails is told with its own words, and can be watched and tried again", async () => {
  const env = await customerEnvironment();
  const host = stack.host("pve1").simulated;
  host.setFaults([
    { match: { program: "pct", command: "clone" }, effect: { kind: "exit", code: 2, stderr: "CT 9000 is broken" } },
  ]);
  const failed = await commands.runPlaced("pods create bad-1 --plan STARTER --wait", { env });
  host.setFaults([]);
  expect(failed.code, failed.err).toBe(8);
  expect(failed.err).toMatch(/^cloudpods: The task create failed: CT 9000 is broken \([A-Z_]+\)$/m);
  const [task] = (await json("tasks ls --state failed", env)).data;
  expect(await run(`tasks watch ${task.id}`, { env })).toMatchObject({ code: 8 });
  const again = await commands.runPlaced(`tasks retry ${task.id} --wait`, { env });
  expect(again.code, again.err).toBe(0);
  expect(await run(`tasks cancel ${task.id}`, { env })).toMatchObject({ code: 4 });
  expect(await run(`pods destroy ${task.podId} --yes --wait`, { env })).toMatchObject({ code: 0 });
});

test("an answer that was lost is asked for again and orders once", async () => {
  const front = await startForgetfulProxy();
  const env = { ...(await customerEnvironment()), CLOUDPODS_API_URL: front.url };
  const before: { data: unknown[] } = await json("pods ls", env);
  front.loseNext = true;
  const { pod } = await json("pods create once-1 --plan STARTER", env);
  expect(front.orders).toEqual([202, 202]);
  const after: { data: { id: string }[] } = await json("pods ls", env);
  expect(after.data.length).toBe(before.data.length + 1);
  expect(await run(`pods destroy ${pod.id} --yes --wait`, { env })).toMatchObject({ code: 0 });
  await front.close();
});

test("an operator sees hosts and asks the scheduler", async () => {
  const env = await operatorEnvironment();
  const hosts = async (): Promise<unknown> => (await json("nodes ls", env)).data;
  await expect.poll(hosts, busy).toMatchObject([{ name: "pve1", state: "online" }]);
  expect((await run("nodes cordon pve1 --reason maintenance", { env })).code).toBe(0);
  const nowhere = await run("why-not STARTER", { env });
  expect(nowhere.out).toMatch(/^STARTER fits nowhere now: 0 of 1 node could take it \(1 cordoned\)\.\n/);
  expect((await run("nodes uncordon pve1", { env })).code).toBe(0);
  expect((await run("why-not STARTER", { env })).out).toMatch(/^STARTER would be placed on pve1/);
  expect((await run("overview", { env })).out).toMatch(/^hosts, hypervisor: +1: 1 online$/m);
  expect((await run("headroom", { env })).out).toContain("CLOUD_POD_STARTER");
  expect((await run("pods ls", { env })).err).toContain("--tenant");
  expect((await run("pods ls --all", { env })).code).toBe(0);
  expect((await run("nodes join-token pve2 --region local", { env })).out).toContain("cloudpods-agent join --server");
});

test("an operator empties a host: what keeps a pod there is told, and that it is empty", async () => {
  const env = await operatorEnvironment();
  const customer = await customerEnvironment();
  const { pod } = await json("pods create stay-1 --plan STARTER --wait", customer);
  const [stays, noWay] = [`stay-1 (${pod.vmid}): `, "(NO_WAY)"];
  const refused = await run(`pods migrate ${pod.vmid} --dry-run`, { env });
  expect(refused).toMatchObject({ code: 4, out: expect.stringContaining("would not move") });
  expect(refused.err).toContain(noWay);
  const preview = await run("nodes drain pve1 --dry-run", { env });
  expect(preview).toMatchObject({
    code: 8,
    out: expect.stringContaining("0 of 1 pod of pve1"),
    err: expect.any(String),
  });
  expect(preview.err).toContain(stays);
  const incomplete = await run("nodes drain pve1 --reason broken --wait", { env });
  expect(incomplete, incomplete.err).toMatchObject({ code: 8, out: expect.stringMatching(/NO_WAY$/m) });
  expect(incomplete.err).toMatch(/^pve1 \[.*\] +0 % incomplete: 1 blocked$/m);
  expect(incomplete.err).toContain("cloudpods: The drain of pve1 ended incomplete: ");
  expect(incomplete.err.split("\n")).toContainEqual(expect.stringMatching(`^  stay-1 .*${RegExp.escape(noWay)}$`));
  expect((await run(`pods destroy ${pod.vmid} --yes --wait`, { env: customer })).code).toBe(0);
  expect(await json("nodes drain pve1 --wait", env)).toMatchObject({ state: "drained", pods: [] });
  expect((await json("nodes drains", env)).data).toMatchObject([{ state: "drained" }, { state: "incomplete" }]);
  expect(await run("nodes drain pve1 --cancel", { env })).toMatchObject({ code: 3 });
  const standing = "nodes evacuate pve1 --confirm-fenced --reason burnt";
  expect(await run(standing, { env })).toMatchObject({ code: 4, err: expect.stringContaining("(NODE_NOT_GONE)") });
  expect((await run("nodes uncordon pve1", { env })).code).toBe(0);
});

test("a control plane that is not there, or does not answer, is told after a while", async () => {
  const nobody = { CLOUDPODS_API_URL: `http://127.0.0.1:${await freePort()}`, CLOUDPODS_TOKEN: "0".repeat(64) };
  // On a busy machine a second may pass before the first try is told that it is refused.
  expect(await run("pods ls --timeout 5s", { env: nobody })).toMatchObject({
    code: 7,
    err: expect.stringContaining("cannot be reached"),
  });
  const silent = createServer(() => {}).listen(0, "127.0.0.1");
  await new Promise((resolve) => silent.once("listening", resolve));
  const deaf = { ...nobody, CLOUDPODS_API_URL: urlOf(silent) };
  expect(await run("pods ls --timeout 1s", { env: deaf })).toMatchObject({
    code: 7,
    err: expect.stringContaining("did not answer in time"),
  });
  silent.closeAllConnections();
  silent.close();
});

test("bash completes by its script: words, and names that the control plane or the profiles know", async () => {
  const env = await operatorEnvironment();
  const completed = async (line: string): Promise<string> => {
    const words = line.split(" ");
    const script = `${completionScripts.bash}
      COMP_WORDS=(cloudpods ${words.map((word) => `"${word}"`).join(" ")}) COMP_CWORD=${words.length}
      _cloudpods && printf '%s\\n' "\${COMPREPLY[@]}"`;
    const shim = `cloudpods() { "${process.execPath}" "${program}" "$@"; }\n`;
    const path = [dirname(process.execPath), process.env["PATH"]].join(":");
    const { stdout } = await promisify(execFile)("bash", ["-c", shim + script], {
      env: { PATH: path, XDG_CONFIG_HOME: commands.home, ...env },
    });
    return stdout;
  };
  expect(await completed("pods ls --status su")).toBe("suspended\n");
  expect(await completed("--profile op")).toBe("ops\n");
  await expect.poll(() => completed("nodes drain "), busy).toBe("pve1\n");
  await expect
    .poll(() => completed("pods create x --plan CLOUD_POD_ST"), busy)
    .toBe("CLOUD_POD_STUDENT\nCLOUD_POD_STARTER\n");
  // Nobody there: nothing, and soon.
  expect(await completed("--profile nobody nodes drain ")).toBe("\n");
});

test("sign-ins that are kept are listed and switched, without their secrets", async () => {
  await operatorEnvironment();
  const url = stack.replicas[0].url;
  const token = `login --url ${url} --token-stdin --profile shop`;
  const signedIn = await run(token, { input: `${stack.customerToken}\n` });
  expect(signedIn.out).toBe(`Signed in to ${url} as the API token; profile shop is current now.\n`);
  expect(await run("profiles use nobody")).toMatchObject({ code: 2, err: expect.stringContaining("profiles ls") });
  expect((await run("profiles use ops")).out).toContain("Profile ops is current");
  const listed = await run("profiles ls --json");
  expect(listed.out).not.toContain(stack.customerToken);
  expect(JSON.parse(listed.out)).toMatchObject({
    current: "ops",
    profiles: expect.arrayContaining([
      { name: "shop", isCurrent: false, url, email: null, tenant: null },
      expect.objectContaining({ name: "ops", isCurrent: true }),
    ]),
  });
  expect((await run("profiles ls")).out).toMatch(/^ops +yes +http/m);
  expect((await run("nodes ls")).code).toBe(0);
});

async function operatorEnvironment(): Promise<Record<string, string>> {
  const { adminEmail, password } = stack.credentials;
  const login = `login --url ${stack.replicas[0].url} --email ${adminEmail} --password-stdin --profile ops`;
  expect(await run(login, { input: `${password}\n` })).toMatchObject({ code: 0 });
  return { CLOUDPODS_PROFILE: "ops" };
}

async function customerEnvironment(): Promise<Record<string, string>> {
  return { CLOUDPODS_API_URL: stack.replicas[0].url, CLOUDPODS_TOKEN: stack.customerToken };
}

function urlOf(server: Server): string {
  // It listens on a port, not on a path.
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Passes requests on; with `loseNext` the answer to the next order that is carried out is lost. */
async function startForgetfulProxy() {
  const proxy = { url: "", loseNext: false, orders: [] as number[], close: async (): Promise<void> => {} };
  const server = createServer((request, response) => {
    void (async () => {
      const body = Buffer.concat(await request.toArray());
      const isOrder = request.method === "POST" && request.url === "/api/cloud-pods";
      const { host: _, connection: __, "content-length": ___, ...headers } = request.headers;
      const answer = await fetch(new URL(request.url ?? "/", stack.replicas[0].url), {
        method: request.method ?? "GET",
        // The headers that the program sends have one value each.
        headers: headers as Record<string, string>,
        ...(body.length === 0 ? {} : { body }),
      });
      const isOrdered = isOrder && answer.ok;
      if (isOrdered) proxy.orders.push(answer.status);
      const text = await answer.text();
      if (isOrdered && proxy.loseNext) {
        proxy.loseNext = false;
        return void request.socket.destroy();
      }
      response.writeHead(answer.status, { "content-type": answer.headers.get("content-type") ?? "" }).end(text);
    })();
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  proxy.url = urlOf(server);
  proxy.close = async () => {
    server.closeAllConnections();
    server.close();
  };
  return proxy;
}
