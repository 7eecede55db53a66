import { X509Certificate, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { connect } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readAuthorities } from "../../control-plane/src/nodes/ensure-certificate-authority.ts";
import { masterKey } from "../../control-plane/src/platform/sealing.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { identityPaths } from "../../node-agent/src/enrolment/identity-files.ts";
import { type CommandLine, openCommandLine } from "../support/command-line.ts";
import { order, succeeded } from "../support/customer.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { type Stack, startStack, untilOnline } from "../support/stack.ts";
import { until } from "../support/until.ts";

const key = randomBytes(32);
let database: TestDatabase;
let stack: Stack;
let commands: CommandLine;
beforeAll(async () => {
  database = await createTestDatabase();
  stack = await startStack({
    logins: database,
    masterKey: key,
    hosts: ["pve1", "pve2"],
    replicas: 2,
    environment: { CLOUDPODS_INVENTORY_INTERVAL_SECONDS: "1" },
  });
  await stack.replicas[1]?.start();
  commands = await openCommandLine();
});
afterAll(async () => {
  await stack.finish();
  await commands.close();
  await database.close();
});

/** What the command says. */
async function rotate(options = ""): Promise<string> {
  const env = {
    CLOUDPODS_DATABASE_URL: database.systemUrl,
    CLOUDPODS_DATABASE_API_URL: database.apiUrl,
    CLOUDPODS_MASTER_KEY: key.toString("hex"),
  };
  const ended = await commands.run(`admin rotate-ca ${options}`.trim(), { env });
  expect(ended.code, ended.err).toBe(0);
  return ended.out;
}

/** The same again until it says so, as an operator would. */
async function rotateUntil(said: RegExp, options = ""): Promise<string> {
  let out = "";
  await until(String(said), async () => said.test((out = await rotate(options))), 60_000, 1_000);
  return out;
}

/** Authorities of the control plane, the active one first. */
const authorities = async () => await readAuthorities(stack.db, masterKey(key));

/** What a host has on its disk. */
async function identityOf(name: string): Promise<{ issuer: string; believed: number }> {
  const paths = identityPaths(stack.host(name).stateDirectory);
  const certificate = new X509Certificate(await readFile(paths.certificate, "utf8"));
  const bundle = await readFile(paths.ca, "utf8");
  return { issuer: certificate.issuer, believed: bundle.match(/BEGIN CERTIFICATE/g)?.length ?? 0 };
}

/** Who has signed the certificate that a replica's gateway shows now; nobody when it shows none, as one that is busy may not. */
async function gatewayIssuer({ url }: Stack["replicas"][number]): Promise<string> {
  const { port } = stack.front.gateway;
  const host = new URL(url).hostname;
  return await new Promise((resolve) => {
    const socket = connect({ port, host, rejectUnauthorized: false, ALPNProtocols: ["h2"] }, () => {
      resolve(socket.getPeerX509Certificate()?.issuer ?? "");
      socket.destroy();
    });
    socket.once("error", () => resolve(""));
  });
}

const nameOf = (pem: string): string => new X509Certificate(pem).subject;

test("another authority takes over while the fleet works, and a host that slept through it needs no visit", async () => {
  expect(await rotate("--status")).toBe("No rotation is under way.\n");
  const { active: former } = await authorities();
  await stack.host("pve2").killAgent();
  expect(await rotate()).toMatch(/^The next certificate authority is made;[^]*do not know it yet: pve1 \(\w+\), pve2 /);
  // The one that answers is told to fetch a certificate, and learns the next authority in the session that follows. Replicas
  // look by the clock, so that either may be the last.
  const waiting = await rotateUntil(/^(?![^]*replicas)[^]*yet: pve2 \(\w+\)\n/);
  expect(waiting).not.toContain("pve1");
  expect((await identityOf("pve1")).believed).toBe(2);
  expect((await authorities()).active.id).toBe(former.id);

  expect(await rotate("--force")).toMatch(/^The next certificate authority signs from now on;/);
  const { active } = await authorities();
  expect(active.id).not.toBe(former.id);
  for (const replica of stack.replicas)
    await until("gateways show the new one", async () => (await gatewayIssuer(replica)) === nameOf(active.pem), 30_000);
  await until("pve1 has a new certificate", async () => {
    await rotate();
    return (await identityOf("pve1")).issuer === nameOf(active.pem);
  });
  await stack.host("pve1").killAgent();
  await stack.host("pve1").startAgent();
  await untilOnline(stack.admin(), [{ name: "pve1" }]);

  // Who has not heard of it does not believe the gateway and renews, which nobody has to protect: the former authority, which
  // it knows, has vouched for the new one.
  const sleeper = stack.host("pve2");
  expect(await identityOf("pve2")).toEqual({ issuer: nameOf(former.pem), believed: 1 });
  await sleeper.startAgent();
  // Not by its state: that it was gone may be noticed later than that it is back.
  await until(
    "pve2 does not believe the gateway and renews",
    async () =>
      (await readFile(sleeper.logPath, "utf8")).includes("WRONG_CA") &&
      (await identityOf("pve2")).issuer === nameOf(active.pem),
    120_000,
  );
  await untilOnline(stack.admin(), stack.hosts);
  expect(await identityOf("pve2")).toEqual({ issuer: nameOf(active.pem), believed: 2 });

  // What replicas signed for themselves by the former one counts for a week.
  expect(await rotate("--wait --wait-timeout 2m")).toMatch(/^(?:[01] of 2 .*\n)*2 of 2 hosts have .*count until.*\n$/);
  await stack.db.execute(
    sql`UPDATE certificate_authorities SET left_at = left_at - interval '8 days' WHERE state = 'leaving'`,
  );
  expect(await rotate()).toBe("The former certificate authority is retired: nothing that it signed counts any more.\n");
  expect((await authorities()).pems).toEqual([active.pem]);
  expect(await rotate("--status")).toBe("No rotation is under way.\n");
  for (const host of stack.hosts) {
    await host.killAgent();
    await host.startAgent();
  }
  await until("hosts forget the former one", async () => {
    const known = await Promise.all(stack.hosts.map(({ name }) => identityOf(name)));
    return known.every(({ believed }) => believed === 1);
  });
  await untilOnline(stack.admin(), stack.hosts);
  const api = stack.customer();
  expect(await succeeded(api, await order(api, "after", "pve2"))).toMatchObject({ status: "active", node: "pve2" });
}, 300_000);
