import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { builtPrograms } from "./built-programs.ts";
import { compileCache } from "./compile-cache.ts";
import { restBetweenRequestsMs, until } from "./until.ts";

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

const missesAgent = /\b(?:NO_CAPACITY|NODE_NOT_ONLINE)\b/;

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
  /** Nothing comes to a host whose agent is missed, as on a busy machine it may be: who is refused a place for that asks again. */
  async function runPlaced(...asked: Parameters<typeof run>): Promise<Ended> {
    return await until(
      `a place for ${String(asked[0])}`,
      async () => {
        const ended = await run(...asked);
        return !(ended.code !== 0 && missesAgent.test(ended.err)) && ended;
      },
      60_000,
      restBetweenRequestsMs,
    );
  }
  return {
    /** Where profiles are kept. */
    home,
    /** Runs a command; in one text its arguments have no spaces. */
    run,
    /** Runs a command that needs a place on a host. */
    runPlaced,
    /** Runs a command that must succeed and gives its JSON. */
    async json(args: string, env: Readonly<Record<string, string>> = {}) {
      const ended = await runPlaced(`${args} --json`, { env });
      expect(ended.code, ended.err).toBe(0);
      return JSON.parse(ended.out);
    },
    /** Removes the home. */
    close: () => rm(home, { recursive: true }),
  };
}
