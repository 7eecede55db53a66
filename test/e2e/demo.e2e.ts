import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type ApiClient, createApiClient } from "../../tools/demo/api-client.ts";
import { openCommandLine } from "../support/command-line.ts";
import { look, metered, type PodAnswer } from "../support/customer.ts";
import { freePort } from "../support/free-port.ts";
import { exitOf, processesAbout, signal } from "../support/processes.ts";
import { until } from "../support/until.ts";

const project = join(import.meta.dirname, "../..");

/** The demo as a user starts it, in a terminal of its own. */
interface Demo {
  readonly child: ChildProcess;
  output(): string;
  /** What Ctrl-C does: the signal goes to everything in the terminal, and nothing may be left soon after. */
  interrupt(): Promise<void>;
}

let folder: string;
let demo: Demo | undefined;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cloudpods-demo-test-"));
});
afterEach(async () => {
  if (demo?.child.pid !== undefined) signal(-demo.child.pid, "SIGKILL");
  const left = await processesAbout(folder);
  for (const { pid } of left) signal(pid, "SIGKILL");
  await rm(folder, { recursive: true, force: true });
  expect(left).toEqual([]);
});

function startDemo(...options: readonly string[]): Demo {
  const child = spawn("npm", ["run", "--silent", "demo", "--", ...options], {
    cwd: project,
    // Its own folder for temporary files tells whose processes are left, and whether a folder is.
    env: { ...process.env, TMPDIR: folder },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => (output += text));
  demo = {
    child,
    output: () => output,
    async interrupt() {
      signal(-(child.pid ?? 0), "SIGINT");
      // npm may be gone before what it ran.
      await exitOf(child);
      await until("the end of every process", async () => (await processesAbout(folder)).length === 0, 90_000);
    },
  };
  return demo;
}

/** Waits for the words that the demo greets with, and takes the API's address and token out of them. */
async function greeted({ child, output }: Demo): Promise<ApiClient> {
  return await until(
    "the demo's greeting",
    () => {
      if (child.exitCode !== null) throw new Error(`the demo ended: ${output()}`);
      const [, url, token] =
        output().match(/-sX POST (http:\/\/[\d.:]+)\/api\/cloud-pods -H 'authorization: Bearer (\w+)'/) ?? [];
      return url === undefined || token === undefined ? undefined : createApiClient(url, token);
    },
    90_000,
  );
}

/** Runs what the README shows of the command line, one after the other; each must succeed. */
async function runReadme({ output }: Demo, port: string): Promise<void> {
  const readme = await readFile(join(project, "README.md"), "utf8");
  const shown = readme
    .matchAll(/^\$ cloudpods (.+?)(?: +# .*)?$/gm)
    .map(([, line = ""]) => wordsOf(line))
    .filter((words) => !needsHands(words));
  const password = /password of both (\S+)/.exec(output())?.[1] ?? "";
  const commands = await openCommandLine();
  const ran: string[] = [];
  try {
    for (const words of shown) {
      const isLogin = words[0] === "login";
      const backup = words.includes("BACKUP") ? (await commands.json("backups ls shop-1")).data[0].id : "";
      const here = words.map((word) => word.replace("127.0.0.1:8080", `127.0.0.1:${port}`).replace(/^BACKUP$/, backup));
      const ended = await (isLogin
        ? commands.run([...here, "--password-stdin"], { input: `${password}\n` })
        : commands.run(here));
      expect(ended.code, `${words.join(" ")}: ${ended.err}`).toBe(0);
      ran.push(words.slice(0, 2).join(" "));
    }
  } finally {
    await commands.close();
  }
  // What the README is known to show: a pattern that finds nothing would prove nothing.
  expect(ran).toEqual(
    expect.arrayContaining(["pods create", "provision-test BUSINESS", "pods restore", "pods migrate", "nodes drain"]),
  );
}

/** Whether a command is about what somebody has done on a host before; those are tried in reconciler.e2e.ts. */
function needsHands(words: readonly string[]): boolean {
  return words.includes("FINDING") || words.includes("adopt");
}

/** A line's words; quotes hold together. */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? "");
}

function noPod(): never {
  throw new Error("there is no pod");
}

test("the unattended form plays its story and its last line says that all is well", async () => {
  const { child, output } = startDemo("--exit", "--port", String(await freePort()), "--sample-interval-seconds", "2");
  expect(await exitOf(child), output()).toBe(0);
  const report: unknown = JSON.parse(output().trim().split("\n").at(-1) ?? "");
  expect(report).toMatchObject({
    ok: true,
    firstActivePodMs: expect.any(Number),
    pods: 3,
    samplesSent: expect.any(Number),
    samplesStored: expect.any(Number),
    samplesLost: 0,
    samplesDuplicated: 0,
    oversell: 0,
    orphans: 0,
  });
  expect((await readdir(folder)).filter((name) => name.startsWith("cloudpods-demo-"))).toEqual([]);
});

test("the README's commands work on the demo, and a folder that is kept resumes after Ctrl-C: the pod runs and is metered on", async () => {
  const kept = join(folder, "kept");
  const port = String(await freePort());
  const options = ["--keep", kept, "--port", port, "--sample-interval-seconds", "1"];
  const first = startDemo(...options);
  const firstApi = await greeted(first);
  await runReadme(first, port);
  const { data } = await firstApi.request<{ data: PodAnswer[] }>("GET", "/api/cloud-pods");
  expect(data).toMatchObject([{ hostname: "shop-1", status: "active", node: "pve1" }]);
  const [pod = noPod()] = data;
  await metered(firstApi, pod);
  // Of the container, not of the machine that carries the demo.
  const { current } = await firstApi.request<{ current: { diskUsedGb: number; diskTotalGb: number } }>(
    "GET",
    `/api/cloud-pods/${pod.id}/usage/realtime`,
  );
  expect(current).toMatchObject({ diskUsedGb: expect.closeTo(0.52, 1), diskTotalGb: 30 });
  await first.interrupt();

  const second = startDemo(...options);
  const api = await greeted(second);
  const startedMs = Date.now();
  expect(await look(api, pod)).toMatchObject({ status: "active", power: "running", vmid: pod.vmid });
  await until(
    "a sample of the second start",
    async () => {
      const usage = await api.request<{ lastUpdate?: string }>("GET", `/api/cloud-pods/${pod.id}/usage/realtime`);
      return Date.parse(usage.lastUpdate ?? "") > startedMs;
    },
    60_000,
  );
  await second.interrupt();
}, 300_000);
