/** What became of a question to a file system. */
export type Asked<T> =
  | { readonly kind: "answered"; readonly value: T }
  /** It answered with an error. */
  | { readonly kind: "failed"; readonly error: Error }
  /** No answer within the deadline, or none is to be expected. */
  | { readonly kind: "unresponsive" };

/** A call of `node:fs` that calls back once, however late. */
export type PoolCall<T> = (done: (error: Error | null, value: T) => void) => void;

/**
 * Asks the kernel about files that may hang, so that the rest of the agent does not hang with them.
 * Every file system that a dead server or daemon can be behind is asked through the one `poolGuard`.
 */
export interface PoolGuard {
  /**
   * @param group what probably dies together, e.g. a Proxmox storage; asked one question at a time
   * @param path what is asked; while a former question about it hangs it is not asked again
   * @param deadlineMs counts from when the kernel is asked
   */
  ask<T>(group: string, path: string, deadlineMs: number, call: PoolCall<T>): Promise<Asked<T>>;
}

/** Group of everything below /etc/pve: without it nothing can be done, so a lane is kept for it. */
export const CLUSTER_GROUP = "pve";

/** Group of everything on a Proxmox storage. */
export function storageGroup(storage: string): string {
  return `storage ${storage}`;
}

/**
 * Hanging questions after which a group is not asked any more until one of them is answered. One
 * daemon is behind all of the cluster file system; on a storage a single mount may hang.
 */
const MAX_HUNG = { cluster: 1, storage: 2 };
/** Threads of Node's pool when UV_THREADPOOL_SIZE does not say otherwise (libuv, "Thread pool"). */
const DEFAULT_POOL_THREADS = 4;

interface Question {
  readonly path: string;
  readonly deadlineMs: number;
  /** Asks the kernel and calls back when it answers, however late. */
  readonly ask: (answered: () => void) => void;
  /** Gives the asker what the kernel answered. */
  readonly deliver: () => void;
  /** Tells the asker that there is no answer. */
  readonly giveUp: () => void;
}

interface Group {
  readonly waiting: Question[];
  /** The question in the kernel whose deadline has not passed. */
  active: Question | undefined;
  /** Paths in the kernel whose asker has given up. */
  readonly hung: Set<string>;
}

/**
 * Makes a guard of a pool of so many threads.
 *
 * A question occupies a thread of Node's pool for as long as the kernel hangs (a dead NFS server:
 * for ever), so one thread is always left to everything else, and one more to the cluster file
 * system. A thread of our own would keep the pool free but costs 19 MB of memory, measured on Node 24.
 */
export function createPoolGuard(threads: number = poolThreads()): PoolGuard {
  const lanes = Math.max(1, threads - 1);
  const maxHungOf = (name: string): number => (name === CLUSTER_GROUP ? MAX_HUNG.cluster : MAX_HUNG.storage);
  const lanesOf = (name: string): number => (name === CLUSTER_GROUP ? lanes : Math.max(1, lanes - 1));
  const groups = new Map<string, Group>();
  let inKernel = 0;
  let hung = 0;

  function ask(group: Group, question: Question): void {
    group.active = question;
    inKernel += 1;
    const timer = setTimeout(() => {
      group.active = undefined;
      group.hung.add(question.path);
      hung += 1;
      question.giveUp();
      pump();
    }, question.deadlineMs);
    question.ask(() => {
      clearTimeout(timer);
      inKernel -= 1;
      if (group.active === question) {
        group.active = undefined;
        question.deliver();
      } else {
        group.hung.delete(question.path);
        hung -= 1;
      }
      pump();
    });
  }

  function pump(): void {
    for (const [name, group] of groups) {
      while (group.active === undefined && group.waiting.length > 0) {
        const isHopeless = hung >= lanesOf(name) || group.hung.size >= maxHungOf(name);
        if (!isHopeless && inKernel >= lanesOf(name)) break;
        const question = group.waiting.shift();
        if (question === undefined) break;
        if (isHopeless || group.hung.has(question.path)) question.giveUp();
        else ask(group, question);
      }
      if (group.active === undefined && group.waiting.length === 0 && group.hung.size === 0) {
        groups.delete(name);
      }
    }
  }

  return {
    ask: <T>(name: string, path: string, deadlineMs: number, call: PoolCall<T>) =>
      new Promise<Asked<T>>((resolve) => {
        const group = groups.get(name) ?? { waiting: [], active: undefined, hung: new Set() };
        groups.set(name, group);
        let answer: Asked<T> = { kind: "unresponsive" };
        group.waiting.push({
          path,
          deadlineMs,
          ask: (answered) =>
            call((error, value) => {
              answer = error === null ? { kind: "answered", value } : { kind: "failed", error };
              answered();
            }),
          deliver: () => resolve(answer),
          giveUp: () => resolve({ kind: "unresponsive" }),
        });
        pump();
      }),
  };
}

/** The guard of this process, whose pool of threads is one too. */
export const poolGuard: PoolGuard = createPoolGuard();

function poolThreads(): number {
  const configured = Number(process.env["UV_THREADPOOL_SIZE"]);
  return Number.isInteger(configured) && configured > 0 ? configured : DEFAULT_POOL_THREADS;
}
