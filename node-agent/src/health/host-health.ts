import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type FilesystemStatus, Heartbeat } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import type { DisciplinedClock } from "../clock/disciplined-clock.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import { storageGroup } from "../pool-guard.ts";
import type { FilesystemProbe } from "../sampling/filesystem-probe.ts";
import type { Spool } from "../spool/spool.ts";
import { type HostCpuTime, busyBasisPoints, parseHostCpuTime, parseLoad1Centi, parseMemoryMb } from "./parse-host.ts";

/** A file system whose fill level the heartbeat tells. */
export interface WatchedFilesystem {
  /** What the control plane knows it by, e.g. the Proxmox storage. */
  readonly name: string;
  readonly path: string;
}

/** The certificate in use. */
export interface CertificateFacts {
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** What a heartbeat is made from. */
export interface HostHealthOptions {
  readonly paths: Pick<HostPaths, "procRoot">;
  readonly clock: DisciplinedClock;
  readonly probe: FilesystemProbe;
  readonly spool: Pick<Spool, "status">;
  readonly agentVersion: string;
  readonly filesystems: () => Promise<readonly WatchedFilesystem[]>;
  readonly certificate: () => CertificateFacts;
  readonly commandsInProgress: () => number;
  readonly runningContainers: () => number;
}

/** Looks at the host without starting any process. */
export interface HostHealth {
  /** A heartbeat of now. What cannot be read is left at zero; a dead file system costs two seconds. */
  collectHeartbeat(): Promise<Heartbeat>;
}

/** How long a file system may take to tell its size, ms. */
const FILESYSTEM_DEADLINE_MS = 2000;

/** Makes the collector. */
export function createHostHealth(options: HostHealthOptions): HostHealth {
  const { clock, probe } = options;
  let sequence = 0n;
  let cpuBefore: HostCpuTime | undefined;

  const readProc = (name: string): string => readFileSync(join(options.paths.procRoot, name), "utf8");

  function cpuBusy(): number {
    const now = parseHostCpuTime(readProc("stat"));
    if (now === undefined) return 0;
    const points = busyBasisPoints(cpuBefore, now);
    cpuBefore = now;
    return points;
  }

  async function statusOf({ name, path }: WatchedFilesystem): Promise<FilesystemStatus> {
    const answer = await probe.size(storageGroup(name), path, FILESYSTEM_DEADLINE_MS);
    if (answer.kind !== "answered") {
      return { name, totalBytes: 0n, availableBytes: 0n, responsive: answer.kind === "failed" };
    }
    const { totalBytes, availableBytes } = answer;
    return { name, totalBytes, availableBytes, responsive: true };
  }

  return {
    async collectHeartbeat() {
      const filesystems = await Promise.all((await options.filesystems()).map(statusOf));
      const meminfo = readProc("meminfo");
      const spool = options.spool.status();
      const certificate = options.certificate();
      sequence += 1n;
      return Heartbeat.fromPartial({
        bootId: clock.bootId,
        sequence,
        wallClockMs: BigInt(Date.now()),
        disciplinedMs: BigInt(clock.epochMs()),
        synchronised: clock.isSynchronised(),
        cpuBusyBasisPoints: cpuBusy(),
        load1Centi: parseLoad1Centi(readProc("loadavg")) ?? 0,
        memoryTotalMb: parseMemoryMb(meminfo, "MemTotal") ?? 0,
        memoryAvailableMb: parseMemoryMb(meminfo, "MemAvailable") ?? 0,
        spoolDepth: BigInt(spool.depth),
        spoolOldestMs: BigInt(spool.oldestEndMs),
        spoolBytes: BigInt(spool.bytes),
        spoolId: spool.spoolId,
        spoolOverLimit: spool.isOverLimit,
        spoolDamagedFiles: [...spool.damagedFiles],
        spoolLostBatches: spool.lostBatches,
        commandsInProgress: options.commandsInProgress(),
        runningContainers: options.runningContainers(),
        filesystems,
        agentVersion: options.agentVersion,
        certificateNotAfterMs: BigInt(certificate.notAfterMs),
        certificateNotBeforeMs: BigInt(certificate.notBeforeMs),
        certificateSerial: certificate.serial,
        agentRssBytes: BigInt(process.memoryUsage.rss()),
      });
    },
  };
}
