import { join } from "node:path";
import type { Logger } from "pino";
import { messageOf } from "./agent-error.ts";
import { type DisciplinedClock, createDisciplinedClock, readBootId } from "./clock/disciplined-clock.ts";
import { answerQuery } from "./commands/answer-query.ts";
import { createCommandQueue } from "./commands/command-queue.ts";
import { createCommandRunner } from "./commands/command-runner.ts";
import { capabilitiesOf } from "./commands/operations.ts";
import { createOwnership } from "./commands/ownership.ts";
import type { AgentConfig } from "./config.ts";

import type { Containers } from "./containers/containers.ts";
import { createContainers } from "./containers/create-containers.ts";
import { readCertificate } from "./enrolment/check-certificate.ts";
import { loadIdentity } from "./enrolment/identity-files.ts";
import { type Renewal, createRenewal } from "./enrolment/renewal.ts";
import { createHostHealth } from "./health/host-health.ts";
import { watchedFilesystems } from "./health/watched-filesystems.ts";
import { readAgentVersion, readMachineId } from "./host-facts.ts";
import { createHostWithoutContainers } from "./host-without-containers.ts";
import type { Journal } from "./journal/journal.ts";
import { openJournalFile } from "./journal/open-journal.ts";
import { pruneJournal } from "./journal/prune-journal.ts";
import { createJournal } from "./journal/sqlite-journal.ts";
import { type GatewayLink, createGatewayLink } from "./link/gateway-link.ts";
import { buildHello } from "./link/hello.ts";
import { takeWelcome, telemetryCredentials } from "./link/take-welcome.ts";
import { poolGuard } from "./pool-guard.ts";
import { createFilesystemProbe } from "./sampling/filesystem-probe.ts";
import { type Sampler, createSampler } from "./sampling/sampler.ts";
import { type Spool, openSpool } from "./spool/spool.ts";
import { watchStartOwned } from "./start-owned-file.ts";
import { lockStateDir } from "./state-lock.ts";
import { writeStatus } from "./status-file.ts";
import { type Telemetry, createTelemetry } from "./telemetry/telemetry.ts";

/** An agent that works. */
export interface RunningAgent {
  /** Ends everything in order; programs that run on the host are left alone. */
  stop(): Promise<void>;
}

/** Until the first Welcome says otherwise. */
const initialIntervals = { sampleMs: 60_000, heartbeatMs: 10_000 };
/** Wide, so that stopping a container need not wait for copies; what is heavy is bounded by its own setting. */
const queueBounds = { maxParallel: 16, maxWaiting: 1_000 };
const pruneIntervalMs = 3_600_000;

/**
 * Starts an agent on an enrolled host.
 *
 * @throws AgentError STATE_DIR_IN_USE, NOT_ENROLLED, IDENTITY_UNREADABLE, MACHINE_ID_UNREADABLE
 */
export function startAgent(config: AgentConfig, log: Logger): RunningAgent {
  const { stateDir } = config;
  const lock = lockStateDir(stateDir);
  const { nodeId } = loadIdentity(stateDir);
  const clock = createDisciplinedClock({ bootId: readBootId(config.host.procRoot) });
  const journal = openJournal(stateDir, log);
  const containers = composeContainers(config, clock, log);
  const metering = composeMetering(config, clock, log, () => work.runner.unfinishedIds().length);
  const { spool, sampler, telemetry } = metering;
  const renewal: Renewal = createRenewal({
    stateDir,
    nowMs: () => clock.epochMs(),
    onRenewed(identity) {
      telemetry.updateCredentials(telemetryCredentials(identity));
      work.link.reconnect();
    },
    log,
  });
  const work = composeWork(config, { clock, journal, containers, renewal, ...metering }, log);
  log.info({ nodeId, agentVersion: readAgentVersion(), role: config.role, stateDir }, "agent starts");

  const endWatch = watchStartOwned({
    stateDir,
    bootId: clock.bootId,
    isAwaiting: () => work.ownership.isAwaiting(),
    onRequest: () => work.ownership.startWithoutControlPlane(),
  });
  const pruning = setInterval(() => withoutFail(log, () => void pruneJournal(journal, clock)), pruneIntervalMs);
  sampler?.start();
  telemetry.start();
  work.link.start();
  renewal.start();
  return {
    async stop() {
      endWatch();
      clearInterval(pruning);
      renewal.stop();
      work.ownership.close();
      work.runner.close();
      await Promise.all([work.link.stop(), telemetry.stop(), sampler?.stop()]);
      spool.close();
      journal.close();
      lock.release();
    },
  };
}

interface Metering {
  readonly spool: Spool;
  readonly sampler: Sampler | undefined;
  readonly telemetry: Telemetry;
}

function composeMetering(
  config: AgentConfig,
  clock: DisciplinedClock,
  log: Logger,
  commandsInProgress: () => number,
): Metering {
  const { stateDir } = config;
  const identity = loadIdentity(stateDir);
  const probe = createFilesystemProbe(poolGuard);
  const spool = openSpool({ path: join(stateDir, "spool.db"), clock, limitBytes: config.spoolLimitBytes, log });
  const sampler =
    config.role === "hypervisor"
      ? createSampler({
          paths: config.host,
          clock,
          spool,
          probe,
          intervalMs: initialIntervals.sampleMs,
          onAppended: () => telemetry.offerNow(),
          log,
        })
      : undefined;
  const health = createHostHealth({
    paths: config.host,
    clock,
    probe,
    spool,
    agentVersion: readAgentVersion(),
    filesystems: () => watchedFilesystems(config.host.pveRoot, stateDir),
    certificate: () => readCertificate(loadIdentity(stateDir).certificatePem),
    commandsInProgress,
    runningContainers: () => sampler?.runningContainers() ?? 0,
  });
  const telemetry = createTelemetry({
    nodeId: identity.nodeId,
    bootId: clock.bootId,
    brokerUrl: identity.brokerUrl,
    credentials: telemetryCredentials(identity),
    heartbeatIntervalMs: initialIntervals.heartbeatMs,
    collectHeartbeat: () => health.collectHeartbeat(),
    spool,
    log,
  });
  return { spool, sampler, telemetry };
}

interface WorkParts extends Metering {
  readonly clock: DisciplinedClock;
  readonly journal: Journal;
  readonly containers: Containers;
  readonly renewal: Renewal;
}

function composeWork(config: AgentConfig, parts: WorkParts, log: Logger) {
  const { stateDir } = config;
  const { clock, journal, containers, renewal, sampler, spool, telemetry } = parts;
  const capabilities = capabilitiesOf(config.role === "hypervisor");
  const queue = createCommandQueue(queueBounds);
  const sampleFinal = (vmid: number): Promise<void> => sampler?.sampleFinal(vmid) ?? Promise.resolve();
  const runner = createCommandRunner({
    containers,
    journal,
    queue,
    capabilities,
    sampleFinal,
    renewCertificate: () => renewal.renewNow(),
    nowMs: () => clock.epochMs(),
    clock,
    send: (message) => link.send(message),
    log,
  });
  const startedAt = new Date().toISOString();
  const agentVersion = readAgentVersion();
  const machineId = readMachineId(config.machineIdPath);
  const link: GatewayLink = createGatewayLink({
    loadIdentity: () => loadIdentity(stateDir),
    renewCertificate: () => renewal.renewNow(),
    onState: (state) => {
      const status = { pid: process.pid, agentVersion, bootId: clock.bootId, startedAt };
      const changedAt = new Date().toISOString();
      withoutFail(log, () => writeStatus(stateDir, { ...status, changedAt, link: state }));
    },
    buildHello: () =>
      buildHello({
        bootId: clock.bootId,
        machineId,
        agentVersion,
        capabilities,
        containers,
        journal,
        runner,
        ownership,
        spool,
        loadIdentity: () => loadIdentity(stateDir),
      }),
    onWelcome: (welcome) => takeWelcome(welcome, { stateDir, spool, sampler, telemetry, ownership, log }),
    onCommand: (command) => runner.receive(command),
    answerQuery: (query) => answerQuery(query, containers, journal.fleetEpoch()),
    inventory: (sizes) => containers.inventory(sizes),
    clock,
    journal,
    log,
  });
  // Last: it may open the runner, whose commands send through the link.
  const ownership = createOwnership({ bootId: clock.bootId, journal, containers, queue, runner, sampleFinal, log });
  return { runner, link, ownership };
}

/** Upkeep that a full disk may prevent without harm. */
function withoutFail(log: Logger, work: () => void): void {
  try {
    work();
  } catch (error) {
    log.warn({ reason: messageOf(error) }, "upkeep of the state directory failed");
  }
}

function composeContainers(config: AgentConfig, clock: DisciplinedClock, log: Logger): Containers {
  if (config.role !== "hypervisor") return createHostWithoutContainers(() => clock.epochMs());
  return createContainers({
    paths: config.host,
    operationsDir: join(config.stateDir, "operations"),
    clock,
    log,
    maxParallelOperations: config.maxParallelOperations,
  });
}

function openJournal(stateDir: string, log: Logger): Journal {
  const { database, damagedFile } = openJournalFile(join(stateDir, "journal.db"));
  if (damagedFile !== undefined) log.error({ damagedFile }, "the journal was damaged and a new one was begun");
  return createJournal(database);
}
