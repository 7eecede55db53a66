import { type BigIntStats, type BigIntStatsFs, stat, statfs } from "node:fs";
import { codeOf } from "../agent-error.ts";

/** What keeps an answer away. */
export type NoAnswer =
  /** The path is not there or must not be read. */
  | { readonly kind: "failed"; readonly code: string }
  /** No answer within the deadline, or none is to be expected. */
  | { readonly kind: "unresponsive" };

/** Size of one file system. */
export type SizeAnswer =
  | {
      readonly kind: "answered";
      readonly totalBytes: bigint;
      /** Free, the part reserved for root included. */
      readonly freeBytes: bigint;
      /** Free for everyone. */
      readonly availableBytes: bigint;
    }
  | NoAnswer;

/** `major:minor` of the device that a path lies on. */
export type DeviceAnswer = { readonly kind: "answered"; readonly device: string } | NoAnswer;

/**
 * Asks file systems; one that hangs costs its own answer and nothing else. A group is what probably
 * dies together, e.g. the Proxmox storage below the path; deadlines count from when the kernel is
 * asked.
 */
export interface FilesystemProbe {
  size(group: string, path: string, deadlineMs: number): Promise<SizeAnswer>;
  device(group: string, path: string, deadlineMs: number): Promise<DeviceAnswer>;
}

/** The two system calls, replaceable by ones that hang. */
export interface FilesystemCalls {
  readonly stat: (path: string, done: (error: Error | null, stats: BigIntStats) => void) => void;
  readonly statfs: (path: string, done: (error: Error | null, size: BigIntStatsFs) => void) => void;
}

/** Hanging questions after which a group is not asked any more until one of them is answered. */
const MAX_HUNG_OF_GROUP = 2;
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
        const isHopeless = hung >= lanes || group.hung.size >= MAX_HUNG_OF_GROUP;
        if (!isHopeless && inKernel >= lanes) break;
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

  function put<T, S>(
    name: string,
    path: string,
    deadlineMs: number,
    call: (path: string, done: (error: Error | null, result: S) => void) => void,
    read: (result: S) => T,
  ): Promise<T | NoAnswer> {
    return new Promise((resolve) => {
      const group = groups.get(name) ?? { waiting: [], active: undefined, hung: new Set() };
      groups.set(name, group);
      let answer: T | NoAnswer = { kind: "unresponsive" };
      group.waiting.push({
        path,
        deadlineMs,
        ask: (answered) =>
          call(path, (error, result) => {
            answer = error === null ? read(result) : { kind: "failed", code: codeOf(error) ?? "UNKNOWN" };
            answered();
          }),
        deliver: () => resolve(answer),
        giveUp: () => resolve({ kind: "unresponsive" }),
      });
      pump();
    });
  }

  return {
    size: (group, path, deadlineMs) => put(group, path, deadlineMs, calls.statfs, sizeOf),
    device: (group, path, deadlineMs) => put(group, path, deadlineMs, calls.stat, deviceOf),
  };
}

const kernelCalls: FilesystemCalls = {
  stat: (path, done) => stat(path, { bigint: true }, done),
  statfs: (path, done) => statfs(path, { bigint: true }, done),
};

function sizeOf(size: BigIntStatsFs): SizeAnswer {
  return {
    kind: "answered",
    totalBytes: size.blocks * size.bsize,
    freeBytes: size.bfree * size.bsize,
    availableBytes: size.bavail * size.bsize,
  };
}

/** `major:minor` out of a dev_t, whose bits are packed as gnu_dev_major(3) says. */
function deviceOf({ dev }: BigIntStats): DeviceAnswer {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xfffff000n);
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffffff00n);
  return { kind: "answered", device: `${major}:${minor}` };
}

function poolThreads(): number {
  const configured = Number(process.env["UV_THREADPOOL_SIZE"]);
  return Number.isInteger(configured) && configured > 0 ? configured : DEFAULT_POOL_THREADS;
}
