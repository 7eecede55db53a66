import { type BigIntStats, type BigIntStatsFs, stat, statfs } from "node:fs";
import { codeOf } from "../agent-error.ts";

/** Answer of one file system. */
export type FilesystemAnswer =
  | {
      readonly kind: "measured";
      readonly totalBytes: bigint;
      /** Free, the part reserved for root included. */
      readonly freeBytes: bigint;
      /** Free for everyone. */
      readonly availableBytes: bigint;
      /** `major:minor` of the device that the path lies on. */
      readonly device: string;
    }
  /** The path is not there or must not be read. */
  | { readonly kind: "failed"; readonly code: string }
  /** No answer within the deadline, or none is to be expected. */
  | { readonly kind: "unresponsive" };

/** Asks file systems for their size; one that hangs costs its own answer and nothing else. */
export interface FilesystemProbe {
  /**
   * @param group what probably dies together, e.g. the Proxmox storage below the path
   * @param deadlineMs counted from when the kernel is asked
   */
  measure(group: string, path: string, deadlineMs: number): Promise<FilesystemAnswer>;
}

/** The two system calls, replaceable by ones that hang. */
export interface FilesystemCalls {
  stat(path: string, done: (error: Error | null, stats: BigIntStats) => void): void;
  statfs(path: string, done: (error: Error | null, size: BigIntStatsFs) => void): void;
}

/** Hanging questions after which a group is not asked any more until one of them is answered. */
const MAX_HUNG_OF_GROUP = 2;
/** Threads of Node's pool when UV_THREADPOOL_SIZE does not say otherwise (libuv, "Thread pool"). */
const DEFAULT_POOL_THREADS = 4;

const unresponsive: FilesystemAnswer = { kind: "unresponsive" };

interface Question {
  readonly path: string;
  readonly deadlineMs: number;
  readonly answer: (answer: FilesystemAnswer) => void;
}

interface Group {
  readonly waiting: Question[];
  /** The question in the kernel whose deadline has not passed. */
  active: Question | undefined;
  /** Paths in the kernel whose asker has given up. */
  readonly hung: Set<string>;
}

/**
 * Makes the one probe of the agent; the sampler and the heartbeat share it.
 *
 * A question occupies a thread of Node's pool for as long as the kernel hangs (a dead NFS server:
 * for ever), so one thread is always left to everything else. A thread of our own would keep the
 * pool free but costs 19 MB of memory, measured on Node 24.
 */
export function createFilesystemProbe(calls: FilesystemCalls = kernelCalls): FilesystemProbe {
  const lanes = Math.max(1, poolThreads() - 1);
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
      question.answer(unresponsive);
      pump();
    }, question.deadlineMs);
    askKernel(calls, question.path, (answer) => {
      clearTimeout(timer);
      inKernel -= 1;
      if (group.active === question) {
        group.active = undefined;
        question.answer(answer);
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
        const isHopeless = hung >= lanes || group.hung.size >= MAX_HUNG_OF_GROUP;
        if (!isHopeless && inKernel >= lanes) break;
        const question = group.waiting.shift();
        if (question === undefined) break;
        if (isHopeless || group.hung.has(question.path)) question.answer(unresponsive);
        else ask(group, question);
      }
      if (group.active === undefined && group.waiting.length === 0 && group.hung.size === 0) {
        groups.delete(name);
      }
    }
  }

  return {
    measure(name, path, deadlineMs) {
      return new Promise((resolve) => {
        const group = groups.get(name) ?? { waiting: [], active: undefined, hung: new Set() };
        groups.set(name, group);
        group.waiting.push({ path, deadlineMs, answer: resolve });
        pump();
      });
    },
  };
}

const kernelCalls: FilesystemCalls = {
  stat: (path, done) => stat(path, { bigint: true }, done),
  statfs: (path, done) => statfs(path, { bigint: true }, done),
};

function askKernel(
  calls: FilesystemCalls,
  path: string,
  answer: (answer: FilesystemAnswer) => void,
): void {
  calls.stat(path, (statError, stats) => {
    if (statError !== null) return answer(failureOf(statError));
    calls.statfs(path, (error, size) => {
      answer(error === null ? measured(stats, size) : failureOf(error));
    });
  });
}

function measured(stats: BigIntStats, size: BigIntStatsFs): FilesystemAnswer {
  return {
    kind: "measured",
    totalBytes: size.blocks * size.bsize,
    freeBytes: size.bfree * size.bsize,
    availableBytes: size.bavail * size.bsize,
    device: deviceName(stats.dev),
  };
}

/** `major:minor` out of a dev_t, whose bits are packed as gnu_dev_major(3) says. */
function deviceName(dev: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xfffff000n);
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

function failureOf(error: Error): FilesystemAnswer {
  return { kind: "failed", code: codeOf(error) ?? "UNKNOWN" };
}

function poolThreads(): number {
  const configured = Number(process.env["UV_THREADPOOL_SIZE"]);
  return Number.isInteger(configured) && configured > 0 ? configured : DEFAULT_POOL_THREADS;
}
