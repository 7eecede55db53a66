import { isAbsolute } from "node:path";
import { AgentError } from "./agent-error.ts";
import { type HostPaths, PROXMOX_PATHS } from "./pct/host-paths.ts";

const roles = ["hypervisor", "web", "mail", "dns", "cloud", "db", "backup"] as const;
const logLevels = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;

/** What the host is for. All roles but `hypervisor` only send heartbeats. */
export type AgentRole = (typeof roles)[number];

/** Everything that the agent takes from its environment. */
export interface AgentConfig {
  /** Identity, journal and spool live here; one agent only. */
  readonly stateDir: string;
  readonly role: AgentRole;
  readonly logLevel: (typeof logLevels)[number];
  /** File whose SHA-256 tells a cloned host from its original. */
  readonly machineIdPath: string;
  readonly host: HostPaths;
  /** Bound of the sample spool in bytes; over it old minutes are merged. */
  readonly spoolLimitBytes: number;
  /** Commands of different containers that change the host at the same time. */
  readonly maxParallelOperations: number;
}

const prefix = "CLOUDPODS_AGENT_";

/** Variables of paths that belong to the host, with their defaults on Proxmox VE. */
const hostPathVariables = {
  pctPath: "PCT_PATH",
  pvesmPath: "PVESM_PATH",
  vzdumpPath: "VZDUMP_PATH",
  pveversionPath: "PVEVERSION_PATH",
  umountPath: "UMOUNT_PATH",
  zstdPath: "ZSTD_PATH",
  lxcStopPath: "LXC_STOP_PATH",
  pveRoot: "PVE_ROOT",
  cgroupRoot: "CGROUP_ROOT",
  procRoot: "PROC_ROOT",
  netClassRoot: "NET_CLASS_ROOT",
  taskLogRoot: "TASK_LOG_ROOT",
  lxcRoot: "LXC_ROOT",
  runRoot: "RUN_ROOT",
} as const satisfies Record<keyof HostPaths, string>;

/**
 * Reads the configuration from environment variables named CLOUDPODS_AGENT_*.
 *
 * @throws AgentError INVALID_CONFIGURATION that names every faulty variable at once.
 */
export function readConfig(environment: Readonly<Record<string, string | undefined>>): AgentConfig {
  const problems: string[] = [];
  const known = new Set<string>();
  const raw = (name: string): string | undefined => {
    known.add(prefix + name);
    const value = environment[prefix + name];
    return value === undefined || value === "" ? undefined : value;
  };
  const path = (name: string, fallback: string): string => {
    const value = raw(name) ?? fallback;
    if (!isAbsolute(value)) problems.push(`${prefix}${name}: "${value}" is not an absolute path`);
    return value;
  };
  const oneOf = <T extends string>(name: string, allowed: readonly T[], fallback: T): T => {
    const value = raw(name) ?? fallback;
    const found = allowed.find((option) => option === value);
    if (found === undefined) {
      problems.push(`${prefix}${name}: "${value}" is not one of ${allowed.join(", ")}`);
    }
    return found ?? fallback;
  };
  const whole = (name: string, fallback: number, least: number, most: number): number => {
    const value = raw(name) ?? String(fallback);
    const number = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN;
    if (number >= least && number <= most) return number;
    problems.push(`${prefix}${name}: "${value}" is not a whole number from ${least} to ${most}`);
    return fallback;
  };
  const hostPath = (name: keyof HostPaths): string => path(hostPathVariables[name], PROXMOX_PATHS[name]);

  const config: AgentConfig = {
    stateDir: path("STATE_DIR", "/var/lib/cloudpods-agent"),
    role: oneOf("ROLE", roles, "hypervisor"),
    logLevel: oneOf("LOG_LEVEL", logLevels, "info"),
    machineIdPath: path("MACHINE_ID_PATH", "/etc/machine-id"),
    spoolLimitBytes: whole("SPOOL_LIMIT_MB", 512, 1, 1_000_000) * 1_048_576,
    maxParallelOperations: whole("MAX_PARALLEL_OPERATIONS", 3, 1, 16),
    host: {
      pctPath: hostPath("pctPath"),
      pvesmPath: hostPath("pvesmPath"),
      vzdumpPath: hostPath("vzdumpPath"),
      pveversionPath: hostPath("pveversionPath"),
      umountPath: hostPath("umountPath"),
      zstdPath: hostPath("zstdPath"),
      lxcStopPath: hostPath("lxcStopPath"),
      pveRoot: hostPath("pveRoot"),
      cgroupRoot: hostPath("cgroupRoot"),
      procRoot: hostPath("procRoot"),
      netClassRoot: hostPath("netClassRoot"),
      taskLogRoot: hostPath("taskLogRoot"),
      lxcRoot: hostPath("lxcRoot"),
      runRoot: hostPath("runRoot"),
    },
  };
  for (const name of Object.keys(environment)) {
    if (name.startsWith(prefix) && !known.has(name)) problems.push(`${name}: there is no such setting`);
  }
  if (problems.length > 0) throw new AgentError("INVALID_CONFIGURATION", problems.join("\n"));
  return config;
}
