import { setTimeout as sleep } from "node:timers/promises";
import type { Database } from "../platform/database.ts";
import type { MasterKey } from "../platform/sealing.ts";
import { describeProgress, describeRotation } from "./describe-rotation.ts";
import {
  readRotation,
  rotateAuthority,
  type Rotation,
  type RotationStep,
  type RotationWish,
} from "./rotate-certificate-authority.ts";

/** How a rotation is followed. */
export interface FollowOptions extends Pick<RotationWish, "externalBroker"> {
  readonly deadlineMs: number;
  /** A line for whoever watches. */
  readonly onLine: (line: string) => void;
  /** Between two looks. */
  readonly pollMs?: number;
  /** Between two times that hosts are told to fetch a certificate. */
  readonly tellEveryMs?: number;
}

const pollMs = 2_000;
/** So many hosts at a time. */
const tellEveryMs = 10_000;

/**
 * Takes one step of a rotation after the other, each when it is safe, and tells how many hosts are ready for the next. It has
 * followed it to its end when the former authority is retired, or waits for nothing but the end of what it has signed.
 * @returns false when that took longer than it was to be followed; nothing is lost then
 * @throws DomainError `BROKER_NOT_CONFIRMED`
 */
export async function followRotation(db: Database, master: MasterKey, options: FollowOptions): Promise<boolean> {
  const { externalBroker, onLine } = options;
  const deadlineMs = performance.now() + options.deadlineMs;
  let told: { readonly atMs: number } | undefined;
  let lastProgress = "";
  for (;;) {
    const seen = await readRotation(db);
    // Somebody else has ended it, and another one was not asked for.
    if (seen.stage === "none" && told !== undefined) return true;
    let rotation: RotationStep = { ...seen, done: "nothing", told: 0 };
    const sinceToldMs = performance.now() - (told?.atMs ?? Number.NEGATIVE_INFINITY);
    if (isReady(seen) || sinceToldMs >= (options.tellEveryMs ?? tellEveryMs)) {
      // Between the look and this somebody else may have ended it.
      const begins = seen.stage === "none";
      rotation = await rotateAuthority(db, master, { begins, force: false, externalBroker });
      told = { atMs: performance.now() };
    }
    const [done] = describeRotation(rotation);
    if (rotation.done !== "nothing" && done !== undefined) onLine(done);
    if (rotation.stage === "none") return true;
    const progress = describeProgress(rotation);
    if (progress !== lastProgress) onLine(progress);
    lastProgress = progress;
    if (onlyTimeIsLeft(rotation)) return true;
    if (performance.now() >= deadlineMs) return false;
    await sleep(options.pollMs ?? pollMs);
  }
}

function isReady({ hosts, others, replicas }: Rotation): boolean {
  return hosts.length === 0 && others.length === 0 && replicas.length === 0;
}

function onlyTimeIsLeft({ stage, hosts, others, validUntil }: Rotation): boolean {
  return stage === "leaving" && hosts.length === 0 && validUntil !== null && others.length === 1;
}
