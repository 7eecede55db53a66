import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { builtPrograms } from "./built-programs.ts";
import { compileCache } from "./compile-cache.ts";

/** What a command said and how it ended. */
export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

interface RunOptions {
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Tells it to end, as Ctrl-C does, once the standard error has this. */
  readonly interruptAt?: RegExp | undefined;
  readonly interruptWith?: "SIGINT" | "SIGTERM";
}

/** The program `cloudpods` as its user has it, with a home of its own. */
export type CommandLine = Awaited<ReturnType<typeof openCommandLine>>;

/** Makes a home and gives the program for it. */
export async function openCommandLine() {
  const program = builtPrograms().controlPlane;
  const home = await mkdtemp(join(tmpdir(), "command-line-"));
  async function run(
    args: string | readonly string[],
    { input = "", env = {}, interruptAt, interruptWith = "SIGINT" }: RunOptions = {},
  ): Promise<Ended> {
    const child = spawn(process.execPath, [program, ...(typeof args === "string" ? args.split(" ") : args)], {
      env: { PATH: process.env["PATH"], XDG_CONFIG_HOME: home, NODE_COMPILE_CACHE: compileCache, ...env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    let out = "";
    let err = "";
    let isInterrupted = false;
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => {
      err += chunk.toString();
      if (isInterrupted || interruptAt?.test(err) !== true) return;
      isInterrupted = true;
      child.kill(interruptWith);
    });
    child.stdin.end(input);
    const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
    return { code, out, err };
  }
  return {
    /** Where profiles are kept. */
    home,
    /** Runs a command; in one text its arguments have no spaces. */
    run,
    /** Runs a command that must succeed and gives its JSON. */
    async json(args: string, env: Readonly<Record<string, string>> = {}) {
      const ended = await run(`${args} --json`, { env });
      expect(ended.code, ended.err).toBe(0);
      return JSON.parse(ended.out);
    },
    /** Removes the home. */
    close: () => rm(home, { recursive: true }),
  };
}
