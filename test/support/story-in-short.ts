import { mkdtempSync, rmSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SampleAcks, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { rollUpDirty } from "../../control-plane/src/metering/roll-up.ts";
import { hostingCache } from "../../control-plane/src/samples-intake/hosting.ts";
import { openStorePool } from "../../control-plane/src/samples-intake/store-pool.ts";
import { storeMessages } from "../../control-plane/src/samples-intake/store-messages.ts";
import { usageDays } from "../../control-plane/src/samples-intake/usage-days.ts";
import { type DisciplinedClock, createDisciplinedClock } from "../../node-agent/src/clock/disciplined-clock.ts";
import { type Spool, openSpool } from "../../node-agent/src/spool/spool.ts";
import type { TestDatabase } from "./postgres.ts";
import { recordBeginning, storyRecords } from "./story-records.ts";
import { createStorySampler } from "./story-sampler.ts";
import type { shownAt } from "./usage-truth/kernel.ts";
import { type Boot, type HostStory, type Story, wallOffMs } from "./usage-truth/story.ts";

/** How a story is measured without processes; what is not the default is wrong on purpose. */
export interface ShortWay {
  /** The spools are this small, and nothing is acknowledged before the end. */
  readonly spoolLimitBytes?: number;
  /** Agents forget what they have offered. */
  readonly forgetsOffers?: boolean;
  /** Times are those of the wall clock. */
  readonly trustsWallClock?: boolean;
  readonly show?: typeof shownAt;
  /** Changes what all hosts send. */
  readonly alter?: (batches: readonly SampleBatch[]) => readonly SampleBatch[];
}

const hourMs = 3_600_000;
/** Looks between two rounds of offers. */
const offerEvery = 5;
/** Messages that are stored in one transaction. */
const groupSize = 40;

/** Measures a story from the kernels to the months' rows in one go; returns what ingest kept aside. */
export async function measureInShort(db: TestDatabase, story: Story, way: ShortWay): Promise<string[]> {
  await recordBeginning(db.system, story);
  await storyRecords(story).recordUpTo(db.system, story.toMs);
  const clock = (): number => story.toMs + hourMs;
  const pool = openStorePool(db.systemUrl, 2);
  const context = { pool, hosting: hostingCache(pool, clock), days: usageDays(pool), clock };
  const aside: string[] = [];
  try {
    for (const [index, { nodeId }] of story.hosts.entries()) {
      const sent = sendAll(story, index, way);
      const batches = [...(way.alter?.(sent) ?? sent)];
      while (batches.length > 0) {
        const group = batches.splice(0, groupSize).map((batch) => SampleBatch.encode(batch).finish());
        const messages = group.map((payload) => ({ nodeId, payload, receivedAtMs: clock() }));
        const { deadLetters, rejected } = await storeMessages(context, messages);
        aside.push(...deadLetters, ...rejected);
      }
    }
    while ((await rollUpDirty(db.system, new Date(clock() + hourMs))).hours > 0);
  } finally {
    await pool.close();
  }
  return aside;
}

/** Everything that the agent of a host sends, in its order. */
function sendAll(story: Story, index: number, way: ShortWay): SampleBatch[] {
  const host = story.hosts[index];
  if (host === undefined) throw new Error(`there is no host ${index}`);
  const directory = mkdtempSync(join(tmpdir(), "story-in-short-"));
  const path = join(directory, "spool.db");
  const sent: SampleBatch[] = [];
  try {
    host.boots.forEach((boot, nth) => {
      const untilMs = host.boots[nth + 1]?.zeroMs ?? story.toMs;
      sent.push(...sendInBoot(story, { index, host, boot, untilMs, path }, way));
    });
  } finally {
    rmSync(directory, { recursive: true });
  }
  return sent;
}

interface BootedHost {
  readonly index: number;
  readonly host: HostStory;
  readonly boot: Boot;
  readonly untilMs: number;
  readonly path: string;
}

function sendInBoot(story: Story, { index, host, boot, untilMs, path }: BootedHost, way: ShortWay): SampleBatch[] {
  let nowMs = Math.max(story.fromMs - 1, boot.zeroMs);
  const disciplined = createDisciplinedClock({
    bootId: boot.bootId,
    monotonicMs: () => nowMs - boot.zeroMs,
    wallMs: () => nowMs + wallOffMs(host, nowMs),
  });
  const clock =
    way.trustsWallClock === true ? wallClock(disciplined, () => boot.zeroMs + wallOffMs(host, nowMs)) : disciplined;
  const spool = openSpool({ path, clock, limitBytes: way.spoolLimitBytes ?? 1e9, log: { warn: () => undefined } });
  const sampler = createStorySampler({ story, host: index, boot, clock, spool, ...(way.show && { show: way.show }) });
  const sent: SampleBatch[] = [];
  let hasSession = false;
  let looks = 0;
  for (let lookMs = sampler.nextLookMs(nowMs); lookMs <= untilMs; lookMs = sampler.nextLookMs(nowMs)) {
    nowMs = lookMs;
    sampler.look(nowMs);
    if (nowMs < boot.contactMs) continue;
    const atMs = clock.monotonicMs();
    clock.recordExchange({ sentMonotonicMs: atMs - 20, receivedMonotonicMs: atMs + 20, serverTimeMs: nowMs });
    if (!hasSession) spool.startSession(spool.ackedSeq());
    hasSession = true;
    looks += 1;
    if (looks % offerEvery !== 0) continue;
    sent.push(...offerOnce(spool));
    if (way.spoolLimitBytes === undefined) acknowledgeAll(spool);
    if (way.forgetsOffers === true) forgetOffers(path);
  }
  for (let offered = offerOnce(spool); offered.length > 0; offered = offerOnce(spool)) {
    sent.push(...offered);
    acknowledgeAll(spool);
  }
  spool.close();
  return sent;
}

function offerOnce(spool: Spool): SampleBatch[] {
  spool.retryNow();
  return spool.takeOffers().map(({ payload }) => SampleBatch.decode(payload));
}

function acknowledgeAll(spool: Spool): void {
  spool.acknowledge(SampleAcks.fromPartial({ spoolId: spool.spoolId(), contiguousSeq: spool.nextSeq() - 1n }));
}

function forgetOffers(path: string): void {
  const database = new DatabaseSync(path, { timeout: 5_000 });
  database.exec("UPDATE batches SET is_offered = 0 WHERE acked_at_ms IS NULL");
  database.close();
}

/** A clock that believes the wall's. */
function wallClock(clock: DisciplinedClock, offsetMs: () => number): DisciplinedClock {
  return { ...clock, offsetMs, epochMs: () => clock.monotonicMs() + offsetMs(), isSynchronised: () => true };
}
