import { pino } from "pino";
import { newId } from "../../shared/src/ids.ts";
import type { Database } from "../../control-plane/src/platform/database.ts";
import { podSagas } from "../../control-plane/src/pods/pod-sagas.ts";
import type { FleetView } from "../../control-plane/src/scheduling/fleet-view.ts";
import { startTaskWorker, type TaskWorker, type TaskWorkerOptions } from "../../control-plane/src/tasks/task-worker.ts";
import { bellOf, unrungMs } from "./bell.ts";

/** Starts a worker of the pods' sagas that rings the database's bell and wakes at it. `onBoundary` may kill it. */
export function startTestWorker(
  db: Database,
  fleet: FleetView,
  onBoundary?: TaskWorkerOptions["onBoundary"],
): TaskWorker {
  const bell = bellOf(db);
  let isOwn = false;
  const worker = startTaskWorker({
    db,
    workerId: newId(),
    sagas: podSagas(fleet),
    log: pino({ level: "silent" }),
    onCommitted: () => {
      isOwn = true;
      bell.ring();
      isOwn = false;
    },
    pollMs: unrungMs,
    ...(onBoundary === undefined ? {} : { onBoundary }),
  });
  const ignore = bell.onRing(() => {
    // After a step of its own a worker goes on by itself.
    if (!isOwn) worker.wake();
  });
  return {
    wake: () => worker.wake(),
    async stop() {
      ignore();
      await worker.stop();
    },
  };
}
