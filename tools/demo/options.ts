import { Command, InvalidArgumentError } from "commander";

/** How the demo runs. */
export interface DemoOptions {
  /** Simulated hosts. */
  readonly hosts: number;
  /** Port of the API and the dashboard. */
  readonly port: number;
  readonly sampleIntervalSeconds: number;
  /** Where the data stays; undefined: in a temporary folder that goes with the demo. */
  readonly keep: string | undefined;
  /** Unattended: plays its story, prints one JSON line and ends. */
  readonly exit: boolean;
}

/** Reads the command line; ends the process with a message when it is wrong. */
export function readOptions(argv: readonly string[]): DemoOptions {
  const program = new Command("npm run demo --")
    .description("A whole CloudPods on this machine: control plane, database, broker and simulated Proxmox hosts.")
    .option("--hosts <n>", "simulated hosts", whole(1, 50), 3)
    .option("--port <n>", "port of the API", whole(1, 65_535), 8080)
    .option("--sample-interval-seconds <n>", "how often usage is measured", whole(1, 3_600), 5)
    .option("--keep <dir>", "keep the data in this folder and resume from it")
    .option("--exit", "unattended: order, scale, kill and destroy, check, print one JSON line, end", false)
    .parse([...argv], { from: "user" });
  const options = program.opts<{
    hosts: number;
    port: number;
    sampleIntervalSeconds: number;
    keep?: string;
    exit: boolean;
  }>();
  return { ...options, keep: options.keep };
}

/** A whole number between two bounds, both included. */
export function whole(least: number, most: number): (text: string) => number {
  return (text) => {
    const number = Number(text);
    if (Number.isInteger(number) && number >= least && number <= most) return number;
    throw new InvalidArgumentError(`a whole number from ${least} to ${most}`);
  };
}
