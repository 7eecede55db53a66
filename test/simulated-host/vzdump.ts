import { appendFileSync, existsSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { collectFiles, packBackup } from "./backup-archive.ts";
import type { Call, Command } from "./call.ts";
import { isOn } from "./call.ts";
import { firewallPath, hasConfig, readConfig } from "./cluster-files.ts";
import { removeConfigLock, setConfigLock, withConfigLock } from "./config-lock.ts";
import { formatConfig } from "./container-config.ts";
import type { ContainerConfig } from "./container-config.ts";
import { CommandFailure, messageOf } from "./failure.ts";
import { namesIn, readIfPresent } from "./files.ts";
import type { Host } from "./layout.ts";
import { localTime } from "./local-time.ts";
import { acquireMutex } from "./mutex.ts";
import { decimal, flag, integer, oneOf, storageId, text, vmid } from "./option-schema.ts";
import { pause, pauseUnscaled } from "./pace.ts";
import { bringDown, bringUp } from "./pct/power.ts";
import { volidOf } from "./pct/disks.ts";
import { isRunning } from "./running-record.ts";
import { runTask } from "./task.ts";
import type { Task } from "./task-worker.ts";
import { printError, writeAll } from "./terminal.ts";
import { openVolume, requireSpace, requireStorage, rootfsOf } from "./volumes.ts";

interface DumpOrder {
  vmid: number;
  mode: string;
  /** Ending of the archive's name behind `.tar`. */
  suffix: string;
  /** Folder of the archive, null for stdout. */
  folder: string | null;
  storage: string | null;
  commandLine: string;
  lockWaitMinutes: number;
  notes: string | null;
  isProtected: boolean;
  /** Backups of the container that stay, null for all. */
  keepLast: number | null;
}

const SUFFIXES: Record<string, string> = { zstd: ".zst", gzip: ".gz", lzo: ".lzo", "0": "", "1": ".lzo" };

/** `vzdump ID`, which has no subcommands. */
export const VZDUMP_COMMANDS: Record<string, Command> = {
  "": {
    words: [["vmid", vmid]],
    options: {
      bwlimit: integer(0),
      compress: oneOf("0", "1", "gzip", "lzo", "zstd"),
      dumpdir: text,
      "exclude-path": text,
      lockwait: integer(0),
      mode: oneOf("snapshot", "suspend", "stop"),
      "notes-template": text,
      protected: flag,
      "prune-backups": text,
      quiet: flag,
      remove: flag,
      stdout: flag,
      stopwait: integer(0),
      storage: storageId,
      tmpdir: text,
      zstd: decimal(0),
    },
    run: vzdump,
  },
};

async function vzdump(call: Call): Promise<void> {
  const { host, options } = call;
  const id = Number(call.words["vmid"]);
  const toStdout = isOn(call, "stdout");
  const { storage, dumpdir } = options;
  if (options["notes-template"] !== undefined && storage === undefined) {
    throw new CommandFailure("400 Parameter verification failed.\nnotes-template: missing 'storage'", 2);
  }
  const folder = toStdout ? null : (dumpdir ?? backupFolder(host, storage ?? "local"));
  const given = Object.entries(options).map(([key, value]) => `--${key} ${value}`);
  const order: DumpOrder = {
    vmid: id,
    mode: options["mode"] ?? "snapshot",
    suffix: SUFFIXES[options["compress"] ?? "0"] ?? "",
    folder,
    storage: toStdout || dumpdir !== undefined ? null : (storage ?? "local"),
    commandLine: ["vzdump", id, ...given].join(" "),
    lockWaitMinutes: Number(options["lockwait"] ?? 180),
    notes: options["notes-template"] ?? null,
    isProtected: isOn(call, "protected"),
    keepLast: options["remove"] === "0" ? null : keepLast(options["prune-backups"]),
  };
  if (!toStdout) {
    await runTask(call, "vzdump", `${id}`, order);
    return;
  }
  const say = (line: string): void => printError(`${line}\n`);
  const reach = async (): Promise<void> => {};
  await vzdumpTask({ host, payload: order, effects: call.effects, say, warn: say, reach });
}

/** The worker of `vzdump`. One backup of a node runs at a time; the others wait. */
export async function vzdumpTask(task: Task<DumpOrder>): Promise<void> {
  const { host, payload } = task;
  const waitMs = payload.lockWaitMinutes * 60_000;
  const release = await acquireMutex(host.layout.root, "vzdump.lock", waitMs, () =>
    task.say("INFO: trying to get global lock - waiting..."),
  );
  if (release === undefined) throw new CommandFailure("can't acquire lock '/var/run/vzdump.lock' - got timeout");
  try {
    task.say(`INFO: starting new backup job: ${payload.commandLine}`);
    await backUp(task);
  } catch (error) {
    task.say(`ERROR: Backup of VM ${payload.vmid} failed - ${messageOf(error)}`);
    task.say(`INFO: Failed at ${localTime(Date.now())}`);
    task.say("INFO: Backup job finished with errors");
    throw new CommandFailure("job errors");
  } finally {
    await release();
  }
  task.say("INFO: Backup job finished successfully");
}

async function backUp(task: Task<DumpOrder>): Promise<void> {
  const { host, payload } = task;
  const { vmid: id } = payload;
  if (!hasConfig(host, id)) throw new CommandFailure(`unable to find VM '${id}'`);
  const started = await untilNameIsFree(task);
  const log: string[] = [];
  const say = (line: string): void => {
    log.push(`${localTime(Date.now())} INFO: ${line}`);
    task.say(`INFO: ${line}`);
  };
  say(`Starting Backup of VM ${id} (lxc)`);
  say(`Backup started at ${localTime(started)}`);
  const config = await setConfigLock(host, id, "backup");
  const running = isRunning(host.layout, id);
  const stop = running && payload.mode === "stop";
  try {
    await task.reach("after-reserve");
    say(`status = ${running ? "running" : "stopped"}`);
    say(`CT Name: ${config.keys["hostname"] ?? `CT${id}`}`);
    say("including mount point rootfs ('/') in backup");
    say(`backup mode: ${running ? payload.mode : "stop"}`);
    if (stop) {
      say("stopping virtual guest");
      await withConfigLock(host, id, async () => {
        await pause(host, 2500);
        await bringDown(host, id);
      });
      await task.reach("after-stop");
    }
    await writeArchive(task, config, started, say);
  } finally {
    await removeConfigLock(host, id, "backup");
    if (stop) {
      say("restarting vm");
      await withConfigLock(host, id, () => bringUp(task, id, readConfig(host, id)));
    }
  }
  say(`Finished Backup of VM ${id} (00:00:0${Math.min(9, Math.round((Date.now() - started) / 1000))})`);
  say(`Backup finished at ${localTime(Date.now())}`);
  const { folder } = payload;
  if (folder !== null) {
    appendFileSync(join(folder, `${archiveName(payload, started)}.log`), `${log.join("\n")}\n`);
  }
}

async function writeArchive(
  task: Task<DumpOrder>,
  config: ContainerConfig,
  startedMs: number,
  say: (line: string) => void,
): Promise<void> {
  const { host, payload } = task;
  const { vmid: id, folder, suffix } = payload;
  const volume = openVolume(host, volidOf(config, "rootfs"));
  const name = `${archiveName(payload, startedMs)}.tar${suffix}`;
  const packed = packBackup(name, {
    vmid: id,
    config: formatConfig(config),
    firewall: readIfPresent(firewallPath(host, id)) ?? null,
    sizeBytes: volume.sizeBytes,
    usedBytes: volume.usedBytes,
    files: collectFiles(rootfsOf(volume)),
  });
  if (folder === null) {
    say("sending archive to stdout");
    writeAll(1, packed);
    return;
  }
  const path = join(folder, name);
  say(`creating vzdump archive '${path}'`);
  mkdirSync(folder, { recursive: true });
  const temporary = `${path.replace(/\.tar.*$/u, "")}.tar.dat`;
  try {
    if (payload.storage !== null) requireSpace(host, requireStorage(host, payload.storage), packed.length);
    writeFileSync(temporary, packed.subarray(0, packed.length / 2));
    await pause(host, 1500);
    await task.reach("half-extracted");
    writeFileSync(temporary, packed);
    renameSync(temporary, path);
  } finally {
    rmSync(temporary, { force: true });
  }
  await task.reach("after-archive");
  say(`archive file size: ${Math.ceil(statSync(path).size / 1024)}KB`);
  if (payload.notes !== null) writeFileSync(`${path}.notes`, expandNotes(host, payload, config));
  if (payload.isProtected) writeFileSync(`${path}.protected`, "");
  prune(payload, say);
}

function expandNotes(host: Host, { vmid: id, notes }: DumpOrder, config: ContainerConfig): string {
  const values: Record<string, string> = {
    guestname: config.keys["hostname"] ?? `CT${id}`,
    node: host.settings.nodeName,
    vmid: `${id}`,
    cluster: "simulated",
  };
  return (notes ?? "").replaceAll(/\{\{(\w+)\}\}/gu, (whole, key: string) => values[key] ?? whole);
}

/** Removes the oldest archives of the container beyond `keep-last`; protected ones stay and do not count. */
function prune({ folder, vmid: id, keepLast: keep }: DumpOrder, say: (line: string) => void): void {
  if (keep === null || folder === null) return;
  const archives = namesIn(folder)
    .filter((name) => name.startsWith(`vzdump-lxc-${id}-`) && /\.tar(?:\.\w{2,3})?$/u.test(name))
    .filter((name) => !existsSync(join(folder, `${name}.protected`)));
  for (const name of archives.slice(0, Math.max(0, archives.length - keep))) {
    say(`removing backup '${name}'`);
    const log = `${name.replace(/\.tar.*$/u, "")}.log`;
    for (const file of [name, `${name}.notes`, log]) rmSync(join(folder, file), { force: true });
  }
}

function keepLast(spec: string | undefined): number | null {
  const count = /(?:^|,)keep-last=(\d+)/u.exec(spec ?? "")?.[1];
  return count === undefined ? null : Number(count);
}

/** Archives are named by the second, and no real backup ends within the one in which it began. @returns ms since 1970 UTC */
async function untilNameIsFree({ payload }: Task<DumpOrder>): Promise<number> {
  for (;;) {
    const now = Date.now();
    const taken = namesIn(payload.folder ?? "").some((name) => name.startsWith(`${archiveName(payload, now)}.tar`));
    if (!taken) return now;
    await pauseUnscaled(1_000 - (now % 1_000));
  }
}

function archiveName({ vmid: id }: DumpOrder, startedMs: number): string {
  return `vzdump-lxc-${id}-${localTime(startedMs).replaceAll("-", "_").replaceAll(":", "_").replace(" ", "-")}`;
}

function backupFolder(host: Host, id: string): string {
  const storage = host.settings.storages.find((candidate) => candidate.id === id);
  const prefix = `could not get storage information for '${id}': `;
  if (storage === undefined) throw new CommandFailure(`${prefix}storage '${id}' does not exist`);
  if (!storage.content.split(",").includes("backup")) {
    throw new CommandFailure(`${prefix}can't use storage '${id}' for backups - wrong content type`);
  }
  return join(requireStorage(host, id).path, "dump");
}
