import type { Task, TaskBody } from "./task-worker.ts";

type Loader = () => Promise<(task: Task<never>) => Promise<void>>;

/** The code of each kind of task, loaded in the worker that runs it. */
const TASKS: Record<string, Loader> = {
  vzcreate: async () => (await import("./pct/create.ts")).createTask,
  vzrestore: async () => (await import("./pct/restore.ts")).restoreTask,
  vzclone: async () => (await import("./pct/clone.ts")).cloneTask,
  vzstart: async () => (await import("./pct/power.ts")).startTask,
  vzstop: async () => (await import("./pct/power.ts")).stopTask,
  vzshutdown: async () => (await import("./pct/power.ts")).shutdownTask,
  vzreboot: async () => (await import("./pct/power.ts")).rebootTask,
  vzdestroy: async () => (await import("./pct/destroy.ts")).destroyTask,
  vzsnapshot: async () => (await import("./pct/snapshots.ts")).snapshotTask,
  vzrollback: async () => (await import("./pct/snapshots.ts")).rollbackTask,
  vzdelsnapshot: async () => (await import("./pct/snapshots.ts")).delsnapshotTask,
  vzpush: async () => (await import("./pct/guest.ts")).pushTask,
  vzpull: async () => (await import("./pct/guest.ts")).pullTask,
  resize: async () => (await import("./pct/disks.ts")).resizeTask,
  vztemplate: async () => (await import("./pct/disks.ts")).templateTask,
  move_volume: async () => (await import("./pct/disks.ts")).moveVolumeTask,
  vzmigrate: async () => (await import("./pct/migrate.ts")).migrateTask,
  vzdump: async () => (await import("./vzdump.ts")).vzdumpTask,
};

/** The code of a task type. @throws Error for a type that no command starts */
export async function loadTask(type: string): Promise<TaskBody> {
  const load = TASKS[type];
  if (load === undefined) throw new Error(`unknown task type '${type}'`);
  // The order of a type is only ever written by the command in the same module as its code.
  return (await load()) as TaskBody;
}
