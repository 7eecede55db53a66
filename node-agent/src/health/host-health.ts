import type { Heartbeat } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import type { DisciplinedClock } from "../clock/disciplined-clock.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import type { FilesystemProbe } from "../sampling/filesystem-probe.ts";
import type { Spool } from "../spool/spool.ts";

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
  readonly filesystems: () => readonly WatchedFilesystem[];
  readonly certificate: () => CertificateFacts;
  readonly commandsInProgress: () => number;
  readonly runningContainers: () => number;
}

/** Looks at the host without starting any process. */
export interface HostHealth {
  /** A heartbeat of now; takes at most two seconds, and never rejects. */
  collectHeartbeat(): Promise<Heartbeat>;
}

/** Makes the collector. */
export declare function createHostHealth(options: HostHealthOptions): HostHealth;
