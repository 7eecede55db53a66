import { InvalidArgumentError, Option, type Command } from "commander";
import type { OpenedCli } from "./open-cli.ts";
import { canNamePod, isId } from "./pod-reference.ts";
import { parseDuration, parsePair, parseSizeMb } from "./terminal/format.ts";

/** What every command that talks to a control plane can be told. */
export interface ClientOptions {
  readonly profile?: string;
  readonly tenant?: string;
  readonly json?: true;
  /** Milliseconds. */
  readonly timeout: number;
}

/** What commands that begin long work can be told. */
export interface WaitOptions {
  readonly wait?: true;
  /** Milliseconds. */
  readonly waitTimeout: number;
}

/** Heading of the options that all such commands have. */
export const commonGroup = "Connection and output:";

/** Adds a command that talks to a control plane. */
export function clientCommand(parent: Command, nameAndArguments: string, description: string): Command {
  return addClientOptions(parent.command(nameAndArguments).description(description));
}

/** Adds the options of `ClientOptions`. */
export function addClientOptions(command: Command): Command {
  const option = (flags: string, description: string): Option => new Option(flags, description).helpGroup(commonGroup);
  return command
    .addOption(option("--json", "print the API's own JSON"))
    .addOption(option("--profile <name>", "sign-in to use (CLOUDPODS_PROFILE)"))
    .addOption(option("--tenant <slug or id>", "tenant to act in, for those who have several"))
    .addOption(
      option("--timeout <duration>", "how long to try to reach the control plane")
        .default(60_000, "1m")
        .argParser(duration),
    );
}

/** Adds the options of `WaitOptions`. */
export function addWaitOptions(command: Command): Command {
  return command.option("--wait", "follow the work to its end").addOption(waitTimeoutOption());
}

/** How long long work is followed. */
export function waitTimeoutOption(): Option {
  return new Option("--wait-timeout <duration>", "how long to follow it").default(1_800_000, "30m").argParser(duration);
}

/** Opens the connection that the options and the environment name, and runs `work` with it; a public one needs no sign-in. */
export async function withCli(
  options: ClientOptions & { readonly isPublic?: boolean },
  work: (cli: OpenedCli) => Promise<void>,
): Promise<void> {
  // Loaded here, so that help and completion do not wait for what they do not need.
  const { openCli } = await import("./open-cli.ts");
  await work(await openCli(options));
}

/** For options that are a duration; gives milliseconds. */
export function duration(text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined || ms === 0) throw new InvalidArgumentError("A duration is written as 90s, 10m or 1h30m.");
  return ms;
}

/** For options that are a whole number above nought. */
export function count(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new InvalidArgumentError("A whole number above 0 is needed.");
}

/** For options that are a size; gives MB. */
export function memorySize(text: string): number {
  const mb = parseSizeMb(text, "m");
  if (mb === undefined) throw new InvalidArgumentError("A size is written as 2048 (MB), 512M or 2G.");
  return mb;
}

/** For options that are the size of a disk; gives whole GB. */
export function diskSize(text: string): number {
  const mb = parseSizeMb(text, "g");
  if (mb === undefined || mb % 1_024 !== 0)
    throw new InvalidArgumentError("A disk is written as 20 (GB), 20G or 1T, in whole GB.");
  return mb / 1_024;
}

/** For options `name=value` that may be given several times. */
export function label(text: string, before: Readonly<Record<string, string>> = {}): Readonly<Record<string, string>> {
  const pair = parsePair(text);
  if (pair === undefined) throw new InvalidArgumentError("A label is written as name=value.");
  return { ...before, [pair[0]]: pair[1] };
}

/** For references to what has an id only; `what` and the command that lists it are told when it is none. */
export function idOf(what: string, listedBy: string): (text: string) => string {
  return (text) => {
    if (isId(text)) return text;
    throw new InvalidArgumentError(`A ${what} is named by its id (see cloudpods ${listedBy}).`);
  };
}

/** For references to pods: a VMID, a UUID, or a hostname. */
export function podReference(text: string): string {
  if (canNamePod(text)) return text;
  throw new InvalidArgumentError("A pod is named by its VMID, its hostname or its id (see cloudpods pods ls).");
}
