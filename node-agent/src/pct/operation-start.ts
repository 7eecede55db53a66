import { execFile, spawn } from "node:child_process";
import { closeSync, existsSync, openSync } from "node:fs";
import { readFile, readdir } from "node:fs/promises";
import { promisify } from "node:util";
import type { OperationFiles, OperationRecord } from "./operation-record.ts";
import { processStart } from "./process-start.ts";

/** How a program ended. */
export type ProgramEnd =
  | { readonly kind: "exited"; readonly exitCode: number }
  | { readonly kind: "killed"; readonly signal: string };

/** A program that this process started. */
export interface StartedProgram {
  readonly pid: number;
  /** Settles when it ends; never rejects. */
  readonly end: Promise<ProgramEnd>;
}

/** The whole environment of every program: the agent's own never reaches one. */
export function programEnvironment(operationId: string): Record<string, string> {
  return {
    PATH: "/sbin:/bin:/usr/sbin:/usr/bin",
    LC_ALL: "C",
    // By this a program is found again whose pid could not be recorded before the agent died.
    CLOUDPODS_OPERATION: operationId,
  };
}

/** True where systemd runs the host. */
export function hasSystemd(): boolean {
  return existsSync("/run/systemd/system");
}

/**
 * Starts a program in a session of its own with its output in files: neither the end of this
 * process nor a reader that goes away can reach it. @throws Error when it cannot be started
 */
export async function startDetached(record: OperationRecord, files: OperationFiles): Promise<StartedProgram> {
  const [program = "", ...args] = record.argv;
  const stdout = openSync(files.stdout, "a", 0o600);
  const stderr = openSync(files.stderr, "a", 0o600);
  try {
    const child = spawn(program, args, {
      detached: true,
      stdio: ["ignore", stdout, stderr],
      env: programEnvironment(record.operationId),
      cwd: "/",
    });
    const end = endOf(child);
    const { pid } = child;
    if (pid === undefined) {
      await end;
      throw new Error(`${program} cannot be started`);
    }
    child.unref();
    return { pid, end };
  } finally {
    closeSync(stdout);
    closeSync(stderr);
  }
}

/**
 * Starts a program as a transient systemd unit, outside the agent's own control group, so that
 * stopping or upgrading the agent's service does not reach it. The `systemd-run` that waits for it
 * tells the exit code and may die without harm.
 */
export async function startUnit(record: OperationRecord, files: OperationFiles, unit: string): Promise<StartedProgram> {
  const child = spawn("systemd-run", systemdRunArguments(record, files, unit), {
    detached: true,
    stdio: "ignore",
    env: { PATH: "/sbin:/bin:/usr/sbin:/usr/bin", LC_ALL: "C" },
    cwd: "/",
  });
  const end = endOf(child);
  child.unref();
  let ended: ProgramEnd | undefined;
  void end.then((result) => (ended = result));
  for (let waits = 0; waits < 100; waits++) {
    const pid = await unitMainPid(unit);
    if (pid !== undefined) return { pid, end };
    // A quick program may have ended before it was looked at.
    if (ended !== undefined) return { pid: child.pid ?? 0, end };
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`the unit ${unit} did not start within 5 s`);
}

/** The arguments of `systemd-run`; KillMode and SendSIGKILL keep systemd from ever killing a worker. */
export function systemdRunArguments(record: OperationRecord, files: OperationFiles, unit: string): string[] {
  const properties = [
    `StandardOutput=append:${files.stdout}`,
    `StandardError=append:${files.stderr}`,
    "KillMode=process",
    "SendSIGKILL=no",
    "TimeoutStopSec=300",
  ];
  const environment = Object.entries(programEnvironment(record.operationId));
  return [
    `--unit=${unit}`,
    "--collect",
    "--quiet",
    "--wait",
    "--service-type=exec",
    ...properties.map((property) => `--property=${property}`),
    ...environment.map(([name, value]) => `--setenv=${name}=${value}`),
    "--",
    // The service manager substitutes "$NAME" in arguments; "$$" stands for a dollar sign.
    ...record.argv.map((word) => word.replaceAll("$", "$$$$")),
  ];
}

/** Pid of a unit's program; undefined when it has none. */
export async function unitMainPid(unit: string): Promise<number | undefined> {
  const { stdout } = await promisify(execFile)("systemctl", ["show", "--property=MainPID", unit], {
    timeout: 10_000,
  });
  const pid = /^MainPID=([1-9]\d*)$/mu.exec(stdout)?.[1];
  return pid === undefined ? undefined : Number(pid);
}

/** Looks for a living process that was started for an operation; undefined when there is none. */
export async function findProgram(
  operationId: string,
): Promise<{ readonly pid: number; readonly start: bigint } | undefined> {
  const mark = `CLOUDPODS_OPERATION=${operationId}\0`;
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/u.test(name)) continue;
    const environment = await readFile(`/proc/${name}/environ`, "utf8").catch(() => "");
    if (!`${environment}\0`.includes(mark)) continue;
    const start = await processStart("/proc", Number(name));
    if (start !== undefined) return { pid: Number(name), start };
  }
  return undefined;
}

function endOf(child: ReturnType<typeof spawn>): Promise<ProgramEnd> {
  return new Promise((resolve) => {
    child.once("exit", (exitCode, signal) => {
      resolve(signal === null ? { kind: "exited", exitCode: exitCode ?? 255 } : { kind: "killed", signal });
    });
    child.once("error", () => resolve({ kind: "exited", exitCode: 127 }));
  });
}
