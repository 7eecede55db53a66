import { fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { readConfig } from "../../control-plane/src/config.ts";
import { prepareDatabaseBeside } from "../../control-plane/src/data-directory.ts";
import { issueServerCertificate } from "../../control-plane/src/nodes/certificate-authority.ts";
import { openDatabase, type Database } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { issuingDeps } from "../support/enrolled-host.ts";
import { freePort } from "../support/free-port.ts";
import { createReplica, type Replica } from "../support/stack-replica.ts";
import { until } from "../support/until.ts";
import type { BareTls } from "./bare-tls-server.ts";
import { printBenchResult } from "./bench-result.ts";
import { startCrew, type Crew, type CrewReport } from "./fleet-crew.ts";

/**
 * One control plane (`cloudpods serve` with its embedded database and broker) and a fleet of agents that are the
 * real ones but for their hosts: the agent's own link (gRPC, back-off, clock, inventory each minute) and telemetry
 * (MQTT, heartbeat each 10 s) over mutual TLS, enrolled by the control plane's own code, many to a process.
 *
 * The figure is the resident memory of the control plane's process at its highest in a minute of the whole fleet.
 * Beside it the bare engine: the resident memory of a plain Node process that holds as many connections with mutual
 * TLS (two for each agent) and does nothing with them. Details: the share of the heartbeats sent in that minute that
 * were stored (both ends of the minute are a second's guess), and the greatest age of any host's newest one; a control plane that is killed and started again (how long until every agent has its session and its
 * broker again, and the most attempts to connect in any second); `vanish` agents whose process is killed, and how
 * long until the database says `offline`. `wronglyOffline` counts hosts that were called offline while they were there.
 */
const agents = Number(process.env["BENCH_AGENTS"] ?? 5_000);
const vanishing = Number(process.env["BENCH_VANISHING"] ?? Math.min(100, Math.floor(agents / 10)));
const agentsPerCrew = 1_250;
const steadyMs = 60_000;
const deadlineMs = 600_000;

/** The control plane and the way to its tables, which are elsewhere after each start. */
interface Bench {
  readonly replica: Replica;
  readonly crews: readonly Crew[];
  readonly openDb: () => Promise<Database>;
}

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-bench-fleet-"));
  // The database server runs as another user when this runs as root.
  await chmod(directory, 0o711);
  const [httpPort, gatewayPort, brokerPort] = [await freePort(), await freePort(), await freePort()];
  const masterKey = randomBytes(32).toString("hex");
  const environment = {
    CLOUDPODS_DATA_DIR: join(directory, "control-plane"),
    CLOUDPODS_MASTER_KEY: masterKey,
    CLOUDPODS_HTTP_PORT: String(httpPort),
    CLOUDPODS_GATEWAY_PORT: String(gatewayPort),
    CLOUDPODS_BROKER_PORT: String(brokerPort),
    CLOUDPODS_PUBLIC_HOST: "localhost",
    ...(process.env["PROF"] ? { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${process.env["PROF"]}` } : {}),
  };
  const url = `http://127.0.0.1:${httpPort}`;
  const replica = createReplica({
    name: "fleet",
    url,
    logPath: join(directory, "log"),
    environment,
    startDeadlineMs: deadlineMs,
  });
  const openDb = async (): Promise<Database> => {
    const { systemUrl } = await prepareDatabaseBeside(readConfig(environment));
    return openDatabase({ url: systemUrl, applicationName: "bench", connectionsMax: 2 });
  };
  await replica.start();
  const staying = Array.from({ length: Math.ceil((agents - vanishing) / agentsPerCrew) }, (_, index) =>
    startCrew(Math.min(agentsPerCrew, agents - vanishing - index * agentsPerCrew)),
  );
  const crews = [startCrew(vanishing), ...staying];
  try {
    const { systemUrl } = await prepareDatabaseBeside(readConfig(environment));
    const addresses = { gatewayAddress: `localhost:${gatewayPort}`, brokerUrl: `mqtts://localhost:${brokerPort}` };
    await Promise.all(crews.map((crew) => crew.enrol({ databaseUrl: systemUrl, masterKey, addresses })));
    console.log(`${agents} hosts enrolled`);
    await measure({ replica, crews, openDb }, masterKey);
  } finally {
    await Promise.all(crews.map((crew) => crew.kill()));
    await replica.terminate();
    if (!process.env["KEEP"]) await rm(directory, { recursive: true, force: true });
  }
}

async function measure(bench: Bench, masterKey: string): Promise<void> {
  const { replica, crews } = bench;
  const [gone] = crews;
  if (gone === undefined) throw new Error("there is nobody to vanish");
  const before = await bench.openDb();
  const startedMs = performance.now();
  await Promise.all(crews.map((crew) => crew.connect()));
  await untilAll(bench, before);
  const connectMs = performance.now() - startedMs;
  console.log(`all connected after ${Math.round(connectMs)} ms`);
  const steady = await measureSteady(bench, before);
  console.log(JSON.stringify(steady));
  await before.close();
  const restart = await measureRestart(bench);
  console.log(JSON.stringify(restart.figures));
  const { db } = restart;
  const { nodeIds } = await gone.report();
  const wronglyOffline = await countOffline(db);
  const detection = await measureVanishing(gone, db, nodeIds);
  console.log(JSON.stringify(detection));
  const wronglyOfflineAtLast = (await countOffline(db)) - wronglyOffline - nodeIds.length;
  const { cert, key, ca } = await serverTls(db, masterKey);
  await db.close();
  await replica.terminate();
  const bare = await measureBare(crews.slice(1), { cert, key, ca });
  printBenchResult({
    bench: "fleet",
    value: steady.rssMb,
    unit: "MB",
    bare,
    agents,
    connectMs: Math.round(connectMs),
    ...steady,
    ...restart.figures,
    vanishing,
    ...detection,
    wronglyOffline: wronglyOffline + Math.max(0, wronglyOfflineAtLast),
  });
}

/** Waits until every agent has its session and its broker, and the database says so. */
async function untilAll({ crews }: Bench, db: Database): Promise<CrewReport[]> {
  return await until(
    "the whole fleet",
    async () => {
      const reports = await Promise.all(crews.map((crew) => crew.report()));
      const isHere = crews.every(({ agents: count }, index) => {
        const report = reports[index];
        return report?.sessions === count && report.brokers === count;
      });
      if (isHere && (await countState(db, "online")) === agents) return reports;
      await sleep(500);
      return undefined;
    },
    deadlineMs,
  );
}

/** A minute of the whole fleet: memory, processor time and what of the heartbeats is stored. */
async function measureSteady({ replica, crews }: Bench, db: Database) {
  const sentBeats = async (): Promise<number> =>
    (await Promise.all(crews.map((crew) => crew.report()))).reduce((sum, { beats }) => sum + beats, 0);
  let stored = 0;
  let rssMb = 0;
  let oldestBeatMs = 0;
  const look = async (): Promise<Date> => {
    const [row] = await db.query<{ newest: Date; oldestMs: number; count: bigint }>(sql`
      SELECT max(last_heartbeat_at) AS newest, extract(epoch FROM clock_timestamp() - min(last_heartbeat_at))::float8 * 1000 AS "oldestMs",
        count(*) FILTER (WHERE last_heartbeat_at > ${newest}) AS count FROM node_status`);
    if (row === undefined) throw new Error("no status");
    stored += Number(row.count);
    oldestBeatMs = Math.max(oldestBeatMs, row.oldestMs);
    rssMb = Math.max(rssMb, await residentMb(replica.pid()));
    return row.newest;
  };
  // What is stored together came after everything that was stored before it, so nothing is missed between two looks.
  let newest = new Date();
  newest = await look();
  stored = 0;
  const sentBefore = await sentBeats();
  const [startedMs, cpuMs] = [performance.now(), await processorMs(replica.pid())];
  while (performance.now() - startedMs < steadyMs) {
    await sleep(1_000);
    newest = await look();
  }
  const elapsedMs = performance.now() - startedMs;
  const sent = (await sentBeats()) - sentBefore;
  return {
    rssMb: Math.round(rssMb),
    cores: round(((await processorMs(replica.pid())) - cpuMs) / elapsedMs),
    heartbeatsPerSecond: Math.round((stored * 1_000) / elapsedMs),
    heartbeatsKept: round(stored / sent),
    oldestHeartbeatMs: Math.round(oldestBeatMs),
  };
}

/** kill -9 of the control plane and a start at once. */
async function measureRestart(bench: Bench) {
  const { replica, crews } = bench;
  const before = countFaults(await Promise.all(crews.map((crew) => crew.report())));
  const [killedMs, startedMs] = [Date.now(), performance.now()];
  await replica.kill();
  await replica.start();
  const readyMs = performance.now() - startedMs;
  const db = await bench.openDb();
  const reports = await untilAll(bench, db);
  const allBackMs = performance.now() - startedMs;
  const perSecond = new Map<number, number>();
  for (const [second, count] of reports.flatMap(({ dials }) => dials)) {
    if (second > Math.floor(killedMs / 1_000)) perSecond.set(second, (perSecond.get(second) ?? 0) + count);
  }
  const readySecond = Math.floor((killedMs + readyMs) / 1_000);
  const counts = [...perSecond].toSorted(([a], [b]) => a - b);
  const faults = [...countFaults(reports)].map(([code, count]) => `${code} ${count - (before.get(code) ?? 0)}`);
  console.log(`without a session since the kill: ${faults.join(", ")}`);
  console.log(`attempts each second since the kill: ${counts.map(([, count]) => count).join(" ")}`);
  return {
    db,
    figures: {
      restartReadyMs: Math.round(readyMs),
      allBackMs: Math.round(allBackMs),
      dials: counts.reduce((sum, [, count]) => sum + count, 0),
      dialsPeakPerSecond: Math.max(...counts.map(([, count]) => count)),
      dialsPeakOnceReady: Math.max(0, ...counts.flatMap(([second, count]) => (second >= readySecond ? [count] : []))),
    },
  };
}

function countFaults(reports: readonly CrewReport[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const [code, count] of reports.flatMap(({ faults }) => faults))
    counts.set(code, (counts.get(code) ?? 0) + count);
  return counts;
}

/** Kills the process of some agents. */
async function measureVanishing(crew: Crew, db: Database, nodeIds: readonly string[]) {
  const killedMs = Date.now();
  await crew.kill();
  const offline = await until(
    "the vanished to be offline",
    async () => {
      const rows = await db.query<{ since: Date }>(
        sql`SELECT state_since AS since FROM node_status WHERE node_id = ANY(${[...nodeIds]}::uuid[]) AND state = 'offline'`,
      );
      if (rows.length === nodeIds.length) return rows;
      await sleep(500);
      return undefined;
    },
    deadlineMs,
  );
  const detectedMs = offline.map(({ since }) => since.getTime() - killedMs).toSorted((a, b) => a - b);
  return {
    detectedP50Ms: detectedMs[Math.floor(detectedMs.length / 2)] ?? Number.NaN,
    detectedMaxMs: detectedMs.at(-1) ?? Number.NaN,
  };
}

async function serverTls(db: Database, masterKey: string): Promise<BareTls> {
  const { authorities } = await issuingDeps(db, Buffer.from(masterKey, "hex"));
  const certificate = await issueServerCertificate(authorities.active, ["127.0.0.1"], new Date());
  return { cert: certificate.pem, key: certificate.privateKeyPem, ca: authorities.pems.join("") };
}

/** Resident memory of a plain server that holds two connections for each agent, MB. */
async function measureBare(crews: readonly Crew[], tls: BareTls): Promise<number> {
  const server = fork(new URL("./bare-tls-server.ts", import.meta.url));
  try {
    server.send(tls);
    const [port]: number[] = await once(server, "message");
    const share = Math.ceil((2 * agents) / crews.length);
    await Promise.all(crews.map((crew) => crew.hold(port ?? 0, share)));
    return await residentMb(server.pid ?? -1);
  } finally {
    server.kill("SIGKILL");
  }
}

async function countState(db: Database, state: string): Promise<number> {
  const [row] = await db.query<{ count: bigint }>(sql`SELECT count(*) FROM node_status WHERE state = ${state}`);
  return Number(row?.count ?? 0);
}

/** How often any host was called offline. */
async function countOffline(db: Database): Promise<number> {
  const [row] = await db.query<{ count: bigint }>(
    sql`SELECT count(*) FROM node_events WHERE kind = 'STATE_CHANGED' AND detail->>'to' = 'offline'`,
  );
  return Number(row?.count ?? 0);
}

async function residentMb(pid: number): Promise<number> {
  const [, kib = "0"] = /^VmRSS:\s+(\d+) kB$/mu.exec(await readFile(`/proc/${pid}/status`, "utf8")) ?? [];
  return (Number(kib) * 1_024) / 1_000_000;
}

/** Processor time of a process so far; the kernel counts it in hundredths of a second. */
async function processorMs(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // The name in parentheses may hold spaces; utime and stime are the 14th and 15th field.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

function round(figure: number): number {
  return Number(figure.toPrecision(4));
}

await main();
