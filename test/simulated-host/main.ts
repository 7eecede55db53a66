import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { readCall, usage } from "./call.ts";
import type { Command } from "./call.ts";
import { followRenames, writeMembers } from "./cluster-files.ts";
import { CommandFailure, messageOf } from "./failure.ts";
import { applyClusterFileSystem, effectsFor, hasFault } from "./faults.ts";
import { strikeAfter, strikeBefore } from "./front-faults.ts";
import { openHost } from "./layout.ts";
import type { Host } from "./layout.ts";
import { pauseUnscaled, uptimeMs } from "./pace.ts";
import { printError, printLine } from "./terminal.ts";

/** What one call of a real tool costs before it does anything: Perl starting. */
const REAL_STARTUP_MS: Record<string, number> = { pct: 600, pvesm: 360, vzdump: 600 };

/**
 * Entry of all executables of a simulated host:
 * `main.ts --host-root ROOT --program pct -- ARGUMENTS` or, for the worker that a long operation
 * forks, `main.ts --host-root ROOT --worker TYPE`.
 */
async function main(argv: string[]): Promise<number> {
  const [, root = "", mode = "", name = "", , ...words] = argv;
  const host = openHost(root);
  if (mode === "--worker") {
    const [{ serveTask }, { loadTask }] = await Promise.all([import("./task-worker.ts"), import("./tasks.ts")]);
    return serveTask(host, loadTask);
  }
  const id = `${process.pid}-${Date.now()}`;
  logInvocation(host, { id, argv: [name, ...words], startedAt: Date.now() });
  let exitCode: number;
  try {
    exitCode = await runProgram(host, name, words);
  } catch (error) {
    printError(`${messageOf(error)}\n`);
    exitCode = error instanceof CommandFailure ? error.exitCode : 255;
  }
  logInvocation(host, { id, endedAt: Date.now(), exitCode });
  return exitCode;
}

async function runProgram(host: Host, program: string, words: string[]): Promise<number> {
  const startup = (REAL_STARTUP_MS[program] ?? 0) * host.settings.speed;
  await pauseUnscaled(startup - uptimeMs());
  applyClusterFileSystem(host.layout);
  const [command, ...rest] = program === "pct" || program === "pvesm" ? words : ["", ...words];
  const vmids = rest.filter((word, index) => isVmid(word, rest[index - 1])).map(Number);
  const effects = await effectsFor(host.layout, { program, command, vmids });
  const struck = await strikeBefore(effects);
  if (struck !== undefined) return struck;
  if (program === "umount") return (await import("./small-programs.ts")).umount(host, words);
  if (program === "zstd") return (await import("./small-programs.ts")).zstd(words);
  if (program === "lxc-stop") return (await import("./small-programs.ts")).lxcStop(host, words);
  if (hasFault(host.layout, "pmxcfsDown") && program !== "pveversion") {
    await pauseUnscaled(10_000 * host.settings.speed);
    const refused = "ipcc_send_rec[1] failed: Connection refused\n".repeat(3);
    throw new CommandFailure(`${refused}Unable to load access control list: Connection refused`, 111);
  }
  writeMembers(host);
  await followRenames(host);
  const commands = await commandsOf(program);
  if (command === "help") {
    printLine(helpText(program, rest[0], commands));
    return 0;
  }
  const found = commands[command ?? ""];
  if (found === undefined) throw new CommandFailure(unknownCommand(program, command, commands));
  const call = { ...readCall(host, program, command ?? "", found, rest), effects };
  const exitCode = (await found.run(call)) ?? 0;
  strikeAfter(effects);
  return exitCode;
}

/** True for a word that names a container rather than an option's value. */
function isVmid(word: string, before = ""): boolean {
  return /^[1-9]\d{2,8}$/u.test(word) && !/^--?[^=]+$/u.test(before);
}

async function commandsOf(program: string): Promise<Record<string, Command>> {
  if (program === "pct") return (await import("./pct/commands.ts")).PCT_COMMANDS;
  if (program === "pvesm") return (await import("./pvesm.ts")).PVESM_COMMANDS;
  if (program === "vzdump") return (await import("./vzdump.ts")).VZDUMP_COMMANDS;
  return (await import("./small-programs.ts")).PVEVERSION_COMMANDS;
}

function unknownCommand(program: string, command: string | undefined, commands: Record<string, Command>): string {
  const complaint =
    command === undefined ? "ERROR: no command specified" : `ERROR: unknown command '${program} ${command}'`;
  return `${complaint}\n${helpText(program, undefined, commands)}`;
}

/** `pct help [COMMAND]`: what the command takes, for callers that look for a feature. */
function helpText(program: string, name: string | undefined, commands: Record<string, Command>): string {
  const known = commands[name ?? ""];
  if (known === undefined) {
    const lines = Object.entries(commands).map(([other, command]) => `       ${usage(program, other, command)}`);
    return [`USAGE: ${program} <COMMAND> [ARGS] [OPTIONS]`, "", ...lines].join("\n");
  }
  const options = Object.entries(known.options).map(([option, { type }]) => `  -${option.padEnd(12)} <${type}>`);
  return [`USAGE: ${usage(program, name ?? "", known)}`, "", ...options].join("\n");
}

function logInvocation(host: Host, entry: object): void {
  appendFileSync(join(host.layout.stateRoot, "invocations.jsonl"), `${JSON.stringify(entry)}\n`);
}

void main(process.argv.slice(2)).then((exitCode) => process.exit(exitCode));
