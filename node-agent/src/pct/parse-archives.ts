/** What the name of an archive says. */
export interface ArchiveName {
  readonly volumeId: string;
  readonly storage: string;
  /** The container that was backed up. */
  readonly vmid: number;
  /** Begin of the backup by this host's clock and time zone, ms since 1970 UTC. */
  readonly createdAtMs: number;
  readonly compression: "zst" | "gz" | "lzo" | "none";
}

const STAMP = String.raw`(\d{4})_(\d\d)_(\d\d)-(\d\d)_(\d\d)_(\d\d)`;
const VOLUME = new RegExp(
  `^([a-zA-Z][a-zA-Z0-9\\-_.]{0,99}):backup/vzdump-lxc-([1-9]\\d{2,8})-${STAMP}\\.tar(?:\\.(zst|gz|lzo))?$`,
  "u",
);

/** Reads a volume id such as "local:backup/vzdump-lxc-102-2026_11_21-00_35_12.tar.zst"; undefined for all else. */
export function parseArchiveVolume(volumeId: string): ArchiveName | undefined {
  const [, storage, vmid, year, month, day, hour, minute, second, ending] = VOLUME.exec(volumeId) ?? [];
  if (storage === undefined || vmid === undefined) return undefined;
  const [y = 0, m = 0, d = 0, h = 0, min = 0, s = 0] = [year, month, day, hour, minute, second].map(Number);
  const compression = ending === "zst" || ending === "gz" || ending === "lzo" ? ending : "none";
  const createdAtMs = new Date(y, m - 1, d, h, min, s).getTime();
  return { volumeId, storage, vmid: Number(vmid), createdAtMs, compression };
}

/** Volume ids of the container archives in the output of `pvesm list --content backup`, in its order. */
export function parseBackupList(stdout: string): string[] {
  return stdout.split("\n").flatMap((line) => {
    const [volumeId = "", , content] = line.trim().split(/\s+/u);
    return content === "backup" && parseArchiveVolume(volumeId) !== undefined ? [volumeId] : [];
  });
}

/** What vzdump wrote about one container. */
export interface DumpLog {
  /** Absolute path that the archive has once it is whole; undefined before it was begun. */
  readonly archivePath: string | undefined;
  /** The container ran when the backup began. */
  readonly wasRunning: boolean;
  /** Why it failed; undefined when it did not say so. */
  readonly failure: string | undefined;
}

/** Reads the output of `vzdump VMID`. Lines about other containers and paths of another form are passed over. */
export function parseDumpLog(stdout: string, vmid: number): DumpLog {
  const path = new RegExp(
    `^INFO: creating vzdump archive '(/[A-Za-z0-9._+@/-]{1,4000}/vzdump-lxc-${vmid}-${STAMP}\\.tar(?:\\.(?:zst|gz|lzo))?)'$`,
    "mu",
  ).exec(stdout)?.[1];
  const failure = new RegExp(`^ERROR: Backup of VM ${vmid} failed - (.*)$`, "mu").exec(stdout)?.[1];
  const isSafe = path !== undefined && !path.split("/").includes("..");
  return {
    archivePath: isSafe ? path : undefined,
    wasRunning: /^INFO: status = running\s*$/mu.test(stdout),
    failure,
  };
}

/** What a vzdump that was killed leaves beside the place of its archive. */
export function halfMadeFiles(archivePath: string): string[] {
  const base = archivePath.replace(/\.tar(?:\.(?:zst|gz|lzo))?$/u, "");
  return [`${base}.tar.dat`, `${base}.tmp`];
}

/** What `pct migrate` wrote. */
export interface MigrationLog {
  /** It shut the container down. */
  readonly wasRunning: boolean;
  /** It ended well. */
  readonly isFinished: boolean;
  /** Time between the shutdown and the end by the log's own stamps, ms in whole seconds; 0 when not both are there. */
  readonly downtimeMs: number;
  /** Why it failed; undefined when it did not say so. */
  readonly failure: string | undefined;
}

/** Reads the output of `pct migrate`, whose lines begin with the local time. */
export function parseMigrationLog(stdout: string): MigrationLog {
  let [shutdownMs, finishedMs, failure]: [number | undefined, number | undefined, string | undefined] = [
    undefined,
    undefined,
    undefined,
  ];
  for (const line of stdout.split("\n")) {
    const [, stamp, text = ""] = /^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (.*)$/u.exec(line) ?? [];
    if (stamp === undefined) continue;
    if (/^shutdown CT \d+$/u.test(text)) shutdownMs = Date.parse(stamp.replace(" ", "T"));
    if (text.startsWith("migration finished successfully")) finishedMs = Date.parse(stamp.replace(" ", "T"));
    // The first reason is the cause, the later ones follow from it.
    failure ??= /^ERROR: (?:migration aborted \(duration [\d:]+\): )?(.*)$/u.exec(text)?.[1];
  }
  const downtimeMs = (finishedMs ?? Number.NaN) - (shutdownMs ?? Number.NaN);
  return {
    wasRunning: shutdownMs !== undefined,
    isFinished: finishedMs !== undefined,
    downtimeMs: downtimeMs > 0 ? downtimeMs : 0,
    failure,
  };
}
