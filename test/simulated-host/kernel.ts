import { flushCompileCache } from "node:module";
import { layoutOf, openHost } from "./layout.ts";
import type { Host } from "./layout.ts";
import { acquireMutex } from "./mutex.ts";
import { publishContainer, publishHost } from "./publish.ts";
import { allRunning, readRunning } from "./running-record.ts";
import { sweepTasks } from "./task-log.ts";

/** Distance between two updates of the counters. */
const TICK_MS = 250;
/** Rest after each update in units of its own length: hundreds of containers must not eat a CPU. */
const REST_FACTOR = 5;
/** The list of tasks is looked through once a second. */
const TICKS_PER_SWEEP = 4;

/**
 * The part of a host that lives without being called: brings all counters up to the present, four
 * times a second, until its parent ends. `kernel ROOT`, with an IPC channel to the parent.
 */
async function run(root: string): Promise<void> {
  const layout = layoutOf(root);
  // A second kernel of one host would do all work twice: it waits for the first to end.
  while ((await acquireMutex(layout.root, "kernel", 60_000)) === undefined);
  const host = openHost(root);
  process.send?.("ready");
  // It is killed in the end.
  flushCompileCache();
  for (let tick = 0; ; tick += 1) {
    const started = performance.now();
    await advance(host);
    if (tick % TICKS_PER_SWEEP === 0) await sweepTasks(host);
    const busyMs = performance.now() - started;
    const restMs = Math.max(TICK_MS - busyMs, busyMs * REST_FACTOR);
    await new Promise((resolve) => setTimeout(resolve, restMs));
  }
}

async function advance(host: Host): Promise<void> {
  const { layout } = host;
  for (const { vmid, initPid } of allRunning(layout)) {
    const release = await acquireMutex(layout.root, `running-${vmid}`, 0);
    if (release === undefined) continue;
    const running = readRunning(layout, vmid);
    if (running?.initPid === initPid) {
      publishContainer(host, running, process.hrtime.bigint(), "counters");
    }
    await release();
  }
  await publishHost(host);
}

process.on("disconnect", () => process.exit(0));
void run(process.argv[2] ?? "");
