import { flushCompileCache } from "node:module";
import { pino } from "pino";
import { openDatabase } from "../../control-plane/src/platform/database.ts";
import { podSagas } from "../../control-plane/src/pods/pod-sagas.ts";
import { createFleetView } from "../../control-plane/src/scheduling/fleet-view.ts";
import { startTaskWorker } from "../../control-plane/src/tasks/task-worker.ts";

/**
 * A worker in a process of its own that kills itself with SIGKILL at the n-th boundary that it reaches:
 * `node killed-worker.ts <database url> <n>`. It prints the boundary's name first, so that the test knows
 * where it died. It says when it has committed a step, or the end of a task, and looks for work when anything is said to it.
 */
// Nothing is written at its end.
flushCompileCache();
const [url = "", nth = "0"] = process.argv.slice(2);
let reached = 0;
const worker = startTaskWorker({
  db: openDatabase({ url, applicationName: "killed worker", connectionsMax: 4 }),
  workerId: `killed-${process.pid}`,
  sagas: podSagas(createFleetView()),
  log: pino({ level: "silent" }),
  onCommitted: (_, change) => void process.stdout.write(change.end === undefined ? "committed\n" : "ended\n"),
  concurrencyMax: 1,
  leaseMs: 150,
  pollMs: 25,
  onBoundary: async (boundary, task) => {
    reached += 1;
    if (reached !== Number(nth)) return;
    process.stdout.write(`${boundary} ${task.type} ${task.step}\n`, () => process.kill(process.pid, "SIGKILL"));
    await new Promise(() => {});
  },
});
process.stdin.on("data", () => worker.wake());
