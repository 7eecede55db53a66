import { existsSync } from "node:fs";
import { dirname } from "node:path";
import type { FaultEffect } from "./faults.ts";
import { CommandFailure } from "./failure.ts";
import { pauseUnscaled } from "./pace.ts";
import { print, printError } from "./terminal.ts";

/** Ends this process at a named moment when a fault says so. Only for commands without a worker. */
export function dieHere(effects: FaultEffect[], point: string): void {
  for (const effect of effects) {
    if (effect.kind === "die-at" && effect.point === point) {
      process.kill(process.pid, `SIG${effect.signal}`);
    }
  }
}

/**
 * What faults do before a command begins: waits, hangs, refusals and lies.
 * @returns the exit code of a command that shall not run at all, or undefined
 */
export async function strikeBefore(effects: FaultEffect[]): Promise<number | undefined> {
  for (const effect of effects) {
    if (effect.kind === "delay") await pauseUnscaled(effect.ms);
    if (effect.kind === "hold") await hold(effect.until);
    if (effect.kind === "hang") await new Promise(() => setInterval(() => {}, 60_000));
    if (effect.kind === "exit" || effect.kind === "lie") {
      print(effect.stdout ?? "");
      printError(effect.stderr ?? "");
      return effect.kind === "exit" ? effect.code : 0;
    }
  }
  return undefined;
}

/** Until the file is there, or its folder has gone with its host. */
async function hold(path: string): Promise<void> {
  while (!existsSync(path) && existsSync(dirname(path))) await pauseUnscaled(20);
}

/** What faults do after a command has done its work. @throws CommandFailure for `fail-after` */
export function strikeAfter(effects: FaultEffect[]): void {
  for (const effect of effects) {
    if (effect.kind === "fail-after") throw new CommandFailure(effect.stderr, effect.code);
  }
  dieHere(effects, "before-exit");
}
