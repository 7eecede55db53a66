import { createWriteStream } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { startControlPlane, type ControlPlane } from "../../control-plane/src/compose.ts";
import { readConfig } from "../../control-plane/src/config.ts";
import { createLog } from "../../control-plane/src/platform/log.ts";
import { createApiClient, until } from "./api-client.ts";
import { createDemoHost, type DemoHost, ownStorages } from "./demo-hosts.ts";
import { startLiveScreen } from "./live-screen.ts";
import { readOptions, type DemoOptions } from "./options.ts";
import { seed, signIn, type Credentials } from "./seed.ts";
import { playStory } from "./story.ts";

/** Factor on every duration of a real host. */
const demoSpeed = 0.1;
const startedAtMs = Date.now() - performance.now();
const options = readOptions(process.argv.slice(2));
const directory = options.keep === undefined ? await mkdtemp(join(tmpdir(), "cloudpods-demo-")) : resolve(options.keep);
const hosts: DemoHost[] = [];
let starting: Promise<ControlPlane> | undefined;
let startingHosts: Promise<unknown> | undefined;
let controlPlane: ControlPlane | undefined;
let interrupted = false;
let ending: Promise<void> | undefined;

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    process.stdout.write("\nEnding everything …\n");
    interrupted = true;
    void end().then(() => process.exit(options.exit ? 1 : 0));
  });
}

try {
  await run();
} catch (error) {
  // What fails while everything is ended is no fault; the signal's handler ends the process.
  if (interrupted) await new Promise(() => {});
  const reason = error instanceof Error ? error.message : String(error);
  await end(true);
  if (options.exit) console.log(JSON.stringify({ ok: false, reasons: [reason] }));
  else console.error(reason);
  process.exit(1);
}

async function run(): Promise<void> {
  // The database server runs as another user when this runs as root, and must get through.
  await mkdir(directory, { recursive: true });
  await chmod(directory, 0o711);
  // The hosts are there before the control plane is, as in life; it also saves seconds.
  const preparing = prepareHosts();
  startingHosts = Promise.allSettled(preparing);
  starting = startControlPlane(
    await configuration(options),
    createLog({ level: "info", destination: createWriteStream(join(directory, "control-plane.log"), { flags: "a" }) }),
  );
  controlPlane = await starting;
  const credentials = await seed(controlPlane.system, directory);
  const adminToken = await signIn(controlPlane.url, credentials.adminEmail, credentials.password);
  const token = await signIn(controlPlane.url, credentials.customerEmail, credentials.password);
  requireGoingOn();
  let joined: Promise<void> = Promise.resolve();
  const hostStarts = preparing.map(async (preparation) => {
    // In the order of their names: among equals the host that joined first gets the first pod.
    joined = joined.then(async () => joinHost(await preparation, adminToken));
    await joined;
    await (await preparation).startAgent();
  });
  startingHosts = Promise.allSettled(hostStarts);
  await Promise.all(hostStarts);
  requireGoingOn();
  const api = createApiClient(controlPlane.url, token);
  await untilPlaceable(adminToken);
  if (!options.exit) {
    const heading = headingOf(controlPlane.url, credentials, token);
    console.log(heading.join("\n"));
    startLiveScreen(controlPlane.system, heading);
    return;
  }
  const stage = {
    api,
    db: controlPlane.system,
    hosts,
    startedAtMs,
    sampleIntervalSeconds: options.sampleIntervalSeconds,
  };
  const report = await playStory({ ...stage, say: (line) => console.log(line) });
  await end(!report.ok);
  console.log(JSON.stringify(report));
  process.exit(report.ok ? 0 : 1);
}

/** Two hosts in a Proxmox cluster, the others by themselves; storage for backups is all that every host sees. */
function prepareHosts(): Promise<DemoHost>[] {
  const names = Array.from({ length: options.hosts }, (_, index) => `pve${index + 1}`);
  const [first, second, ...others] = names;
  if (first === undefined || second === undefined) return names.map((name) => prepareHost(name));
  const clusterRoot = join(directory, "cluster");
  const founder = prepareHost(first, { clusterRoot });
  // Members come one after the other: they agree about ids in the cluster's folder.
  const member = founder.then(() => prepareHost(second, { clusterRoot }));
  return [founder, member, ...others.map((name) => prepareHost(name))];
}

async function prepareHost(name: string, cluster: { readonly clusterRoot?: string } = {}): Promise<DemoHost> {
  const backups = { id: "backups", type: "dir", totalGb: 500, content: "backup", shared: true } as const;
  const host = await createDemoHost(join(directory, "hosts"), name, demoSpeed, {
    storages: [...ownStorages, { ...backups, path: join(directory, "backups") }],
    ...cluster,
  });
  hosts.push(host);
  return host;
}

async function joinHost(host: DemoHost, adminToken: string): Promise<void> {
  if (controlPlane === undefined || host.isEnrolled()) return;
  const admin = createApiClient(controlPlane.url, adminToken);
  const { token } = await admin.request<{ token: string }>("POST", "/api/nodes/join-tokens", {
    name: host.name,
    role: "hypervisor",
    region: "local",
  });
  await host.join(controlPlane.url, token);
}

/** Orders are refused until a host has said what it has. */
async function untilPlaceable(adminToken: string): Promise<void> {
  const admin = createApiClient(controlPlane?.url ?? "", adminToken);
  await until("the hosts are online", 60_000, async () => {
    const { data } = await admin.request<{ data: { state: string }[] }>("GET", "/api/nodes");
    return data.filter((node) => node.state === "online").length >= options.hosts ? true : undefined;
  });
}

/** Ports stay the same over restarts, because the agents have learned them. */
async function configuration(demo: DemoOptions) {
  const path = join(directory, "ports.json");
  const kept = await readFile(path, "utf8").catch(() => undefined);
  // Written by this very function.
  const ports =
    kept === undefined
      ? { gateway: await freePort(), broker: await freePort() }
      : (JSON.parse(kept) as { gateway: number; broker: number });
  await writeFile(path, JSON.stringify(ports));
  return readConfig({
    CLOUDPODS_DATA_DIR: join(directory, "control-plane"),
    CLOUDPODS_HTTP_PORT: String(demo.port),
    CLOUDPODS_GATEWAY_HOST: "127.0.0.1",
    CLOUDPODS_GATEWAY_PORT: String(ports.gateway),
    CLOUDPODS_BROKER_HOST: "127.0.0.1",
    CLOUDPODS_BROKER_PORT: String(ports.broker),
    CLOUDPODS_SAMPLE_INTERVAL_SECONDS: String(demo.sampleIntervalSeconds),
    CLOUDPODS_SECURE_COOKIES: "false",
  });
}

function headingOf(url: string, credentials: Credentials, token: string): string[] {
  return [
    `CloudPods runs on ${url} (reference: ${url}/docs); data in ${directory}${options.keep === undefined ? ", removed at the end" : ""}`,
    `Administrator ${credentials.adminEmail}, customer ${credentials.customerEmail}, password of both ${credentials.password}`,
    "Order a pod:",
    `  curl -sX POST ${url}/api/cloud-pods -H 'authorization: Bearer ${token}' -H 'content-type: application/json' -d '{"planCode":"STARTER","hostname":"shop-1"}'`,
  ];
}

function requireGoingOn(): void {
  if (interrupted) throw new Error("the demo was interrupted");
}

/**
 * Ends every process that was started, agents first; the data goes too unless it is to be kept. A start
 * that is under way is waited for: what it has begun would stay behind.
 */
function end(failed = false): Promise<void> {
  ending ??= (async () => {
    const started = await starting?.catch(() => undefined);
    await startingHosts;
    await Promise.allSettled(hosts.map((host) => host.stop()));
    await started?.stop().catch((error: unknown) => console.error(error));
    if (options.keep === undefined && !failed) await rm(directory, { recursive: true, force: true });
    else if (failed) console.error(`The logs are in ${directory}`);
  })();
  return ending;
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((listening) => probe.listen(0, "127.0.0.1", listening));
  const address = probe.address();
  await new Promise((closed) => probe.close(closed));
  if (address === null || typeof address === "string") throw new Error("no free port");
  return address.port;
}
