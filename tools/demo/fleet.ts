import { createWriteStream } from "node:fs";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import { startControlPlane, type ControlPlane } from "../../control-plane/src/compose.ts";
import { readConfig } from "../../control-plane/src/config.ts";
import { createLog } from "../../control-plane/src/platform/log.ts";
import { freePort } from "../../test/support/free-port.ts";
import { createApiClient, until, type ApiClient } from "./api-client.ts";
import { createDemoHost, type DemoHost } from "./demo-hosts.ts";
import type { Killed } from "./fleet-outage.ts";
import { playFleetStory, type FleetReport } from "./fleet-story.ts";
import { whole } from "./options.ts";
import { seed, signIn } from "./seed.ts";

/** Five hosts in two Proxmox clusters; storage for archives is the only thing that all of them see. */
const clusters = { north: ["pve1", "pve2", "pve3"], south: ["pve4", "pve5"] };

const { pods, speed, kill } = new Command("npm run demo:fleet --")
  .description(
    "A host of a simulated fleet is drained while another one is killed; prints the figures as one JSON line.",
  )
  .option("--pods <n>", "pods on the fleet", whole(5, 200), 60)
  .option("--speed <percent>", "durations of the hosts' programs, percent of real ones", whole(1, 100), 10)
  .addOption(
    new Option("--kill <what>", "what dies meanwhile: a whole host, or only its agent for a moment")
      .choices(["host", "agent"])
      .default("host"),
  )
  .parse(process.argv.slice(2), { from: "user" })
  .opts<{ pods: number; speed: number; kill: Killed }>();

const directory = await mkdtemp(join(tmpdir(), "cloudpods-fleet-"));
const hosts: DemoHost[] = [];
let controlPlane: ControlPlane | undefined;
let ending: Promise<void> | undefined;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => void end(false).then(() => process.exit(1)));
}

const report = await run().catch((error: unknown) => ({
  ok: false,
  reasons: [error instanceof Error ? error.message : String(error)],
}));
await end(!report.ok);
console.log(JSON.stringify(report));
process.exit(report.ok ? 0 : 1);

async function run(): Promise<FleetReport> {
  // The database server runs as another user when this runs as root, and must get through.
  await chmod(directory, 0o711);
  const config = readConfig({
    CLOUDPODS_DATA_DIR: join(directory, "control-plane"),
    CLOUDPODS_HTTP_PORT: "0",
    CLOUDPODS_GATEWAY_HOST: "127.0.0.1",
    CLOUDPODS_GATEWAY_PORT: String(await freePort()),
    CLOUDPODS_BROKER_HOST: "127.0.0.1",
    CLOUDPODS_BROKER_PORT: String(await freePort()),
    CLOUDPODS_SAMPLE_INTERVAL_SECONDS: "5",
    CLOUDPODS_SECURE_COOKIES: "false",
  });
  const log = createLog({ level: "info", destination: createWriteStream(join(directory, "control-plane.log")) });
  controlPlane = await startControlPlane(config, log);
  const { url, system } = controlPlane;
  const { adminEmail, customerEmail, password, tenantId } = await seed(system, directory);
  const admin = createApiClient(url, await signIn(url, adminEmail, password));
  const api = createApiClient(url, await signIn(url, customerEmail, password));
  const limits = { pods, cpuCores: pods, memoryMb: pods * 1_024, diskGb: pods * 30 };
  await admin.request("PUT", `/api/cloud-pods/tenants/${tenantId}/quota`, { source: "tenant", limits });
  for (const [cluster, names] of Object.entries(clusters))
    // One after the other: they agree about ids in the cluster's folder.
    for (const name of names) await addHost(name, cluster, url, admin);
  await until("the hosts are online", 120_000, async () => {
    const { data } = await admin.request<{ data: { state: string }[] }>("GET", "/api/nodes");
    return data.filter(({ state }) => state === "online").length === hosts.length ? true : undefined;
  });
  console.log(`${hosts.length} hosts in ${Object.keys(clusters).length} clusters are online; ${url}`);
  return await playFleetStory({ api, admin, db: system, hosts, pods, kill, say: (line) => console.log(line) });
}

async function addHost(name: string, cluster: string, serverUrl: string, admin: ApiClient): Promise<void> {
  const host = await createDemoHost(join(directory, "hosts"), name, speed / 100, {
    clusterRoot: join(directory, "clusters", cluster),
    cores: 32,
    memoryMb: 65_536,
    storages: [
      { id: "local", type: "dir", totalGb: 200, content: "vztmpl" },
      { id: "local-lvm", type: "lvmthin", totalGb: 4_000, content: "rootdir" },
      {
        id: "archive",
        type: "dir",
        totalGb: 4_000,
        content: "backup",
        shared: true,
        path: join(directory, "archive"),
      },
    ],
  });
  hosts.push(host);
  const { token } = await admin.request<{ token: string }>("POST", "/api/nodes/join-tokens", {
    name,
    role: "hypervisor",
    region: "local",
  });
  await host.join(serverUrl, token);
  await host.startAgent();
}

/** Ends every process that was started, agents first; what failed leaves its logs. */
function end(failed: boolean): Promise<void> {
  ending ??= (async () => {
    await Promise.allSettled(hosts.map((host) => host.stop()));
    await controlPlane?.stop().catch((error: unknown) => console.error(error));
    if (failed) console.error(`The logs are in ${directory}`);
    else await rm(directory, { recursive: true, force: true });
  })();
  return ending;
}
