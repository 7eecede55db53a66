import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { storyRecords } from "./story-records.ts";
import { patiently, type StoryWorld } from "./story-world.ts";
import { until } from "./until.ts";
import { type Random, randomOf } from "./usage-truth/random.ts";
import { at, isAgentAt, type HostStory, type Story } from "./usage-truth/story.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;

/** How often each part dies in the course of a story. */
export type FaultCounts = Readonly<Record<Fault, number>>;
/** `backend`: the connection of a replica is ended by the server, between any two statements. */
export type Fault = "agent" | "replica" | "broker" | "postgres" | "backend";

export interface RunOptions {
  readonly seed: number;
  readonly faults: FaultCounts;
  /** The longest that the story goes on between two looks at what else happens. */
  readonly stepMs: number;
  readonly onProgress?: (done: { readonly atMs: number; readonly step: number; readonly steps: number }) => void;
}

/** Lets a story happen from its beginning to its end, while parts die. Returns how many of each did. */
export async function runStory(world: StoryWorld, options: RunOptions): Promise<Record<Fault, number>> {
  const { story, db } = world;
  const random = randomOf(options.seed + 1);
  const records = storyRecords(story);
  const steps = stepsOf(story, options.stepMs);
  const due = dealFaults(options.faults, steps.length, random);
  const died: Record<Fault, number> = { agent: 0, replica: 0, broker: 0, postgres: 0, backend: 0 };
  let dying: Promise<void> = Promise.resolve();
  for (const [step, toMs] of steps.entries()) {
    await patiently(() => records.recordUpTo(db, toMs));
    await Promise.all(world.replicas.map((replica) => replica.setNow(toMs)));
    const fromMs = steps[step - 1] ?? story.fromMs - 1;
    const going = Promise.all(story.hosts.map((host, index) => goOn(world, host, index, { fromMs, toMs })));
    for (const fault of due.get(step) ?? []) {
      await dying;
      dying = commit(world, fault, random).then(() => void (died[fault] += 1));
    }
    await Promise.all([going, dying.catch(() => {})]);
    options.onProgress?.({ atMs: toMs, step, steps: steps.length });
  }
  await dying;
  await until("the spools to be empty", () => areEmpty(world), 300_000);
  return died;
}

/** Regular steps, and every moment at which an agent comes or goes. */
function stepsOf(story: Story, stepMs: number): number[] {
  const moments = new Set<number>();
  for (let atMs = story.fromMs; atMs < story.toMs; atMs += stepMs) moments.add(atMs);
  for (const host of story.hosts) {
    for (const { fromMs, toMs } of host.absences) moments.add(fromMs).add(toMs);
    for (const boot of host.boots.slice(1))
      moments.add(Math.floor((boot.zeroMs - 1) / story.sampleMs) * story.sampleMs).add(boot.firstLookMs);
  }
  return [...moments, story.toMs].toSorted((one, other) => one - other);
}

/** Spreads the faults evenly over the steps, in any order. */
function dealFaults(counts: FaultCounts, steps: number, random: Random): Map<number, Fault[]> {
  const deck = Object.entries(counts)
    .flatMap(([fault, count]) => Array.from({ length: count }, () => ({ fault: fault as Fault, order: random.next() })))
    .toSorted((one, other) => one.order - other.order);
  return Map.groupBy(deck, (_card, index) => Math.floor(((index + 0.5) * steps) / deck.length))
    .entries()
    .reduce(
      (dealt, [step, cards]) =>
        dealt.set(
          step,
          cards.map((card) => card.fault),
        ),
      new Map<number, Fault[]>(),
    );
}

async function goOn(
  world: StoryWorld,
  host: HostStory,
  index: number,
  { fromMs, toMs }: { readonly fromMs: number; readonly toMs: number },
): Promise<void> {
  const agent = world.agents[index];
  const gone = at(host.offline, fromMs);
  await world.connect(index, gone === undefined || gone.toMs < toMs);
  // It was away meanwhile.
  if (host.absences.some((absence) => absence.toMs === toMs) || host.boots.some((boot) => boot.firstLookMs === toMs))
    await agent?.kill();
  if (isAgentAt(host, toMs)) await agent?.goTo(toMs);
  else await agent?.kill();
}

async function commit(world: StoryWorld, fault: Fault, random: Random): Promise<void> {
  // Into the middle of what is going on.
  await sleep(random.whole(0, 60));
  switch (fault) {
    case "agent":
      return await random.pick(world.agents).kill();
    case "replica": {
      const replica = random.pick(world.replicas);
      await replica.kill();
      await sleep(random.whole(0, 300));
      return await replica.start();
    }
    case "broker":
      return await world.restartBroker(() => sleep(random.whole(0, 500)));
    case "postgres":
      await world.postgres.kill();
      await sleep(random.whole(0, 500));
      return await world.postgres.start();
    case "backend":
      return await endBackend(world);
  }
}

/** Ends a connection of a replica that is in the middle of a transaction, if there is one. */
async function endBackend({ db }: StoryWorld): Promise<void> {
  await patiently(() =>
    db.query(sql`
      SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE application_name IN ('story-replica', 'cloudpods-ingest') AND datname = current_database()
      ORDER BY xact_start IS NULL, random() LIMIT 1`),
  );
}

async function areEmpty(world: StoryWorld): Promise<boolean> {
  const depths = await Promise.all(world.agents.map((agent) => agent.goTo(world.story.toMs)));
  return depths.every(({ depth }) => depth === 0);
}

/** Waits until everything that has come is in the figures, at an hour after the story's end. */
export async function settle(world: StoryWorld, afterMs = hourMs): Promise<void> {
  const { story, db } = world;
  const nowMs = story.toMs + afterMs;
  await Promise.all(world.replicas.map((replica) => replica.setNow(nowMs)));
  await until(
    "the last roll-up",
    async () => {
      const [row] = await patiently(() =>
        db.query<{ waiting: boolean }>(sql`
          SELECT EXISTS (SELECT FROM usage_dirty_hours WHERE hour_start < ${new Date(story.toMs)})
            OR EXISTS (SELECT FROM usage_dirty_days) OR EXISTS (SELECT FROM usage_dirty_months)
            OR coalesce((SELECT max(hour_start) FROM usage_hours), '-infinity') < ${new Date(story.toMs - hourMs)} AS waiting`),
      );
      return row?.waiting === false;
    },
    300_000,
  );
}

/** Lets four days pass in which nothing happens: days are sealed and archived, ended months closed. */
export async function retire(world: StoryWorld): Promise<void> {
  await settle(world, 4 * dayMs + hourMs);
  const lastDay = new Date(world.story.toMs - 1).toISOString().slice(0, 10);
  const lastMonth = lastDay.slice(0, 7);
  await until(
    "sealed days and closed months",
    async () => {
      const [row] = await patiently(() =>
        world.db.query<{ open: boolean }>(sql`
          SELECT EXISTS (SELECT FROM usage_days WHERE day <= ${lastDay} AND dropped_at IS NULL)
            OR EXISTS (SELECT FROM cloud_pod_usage_monthly WHERE year_month < ${lastMonth} AND closed_at IS NULL) AS open`),
      );
      return row?.open === false;
    },
    600_000,
  );
  await settle(world, 4 * dayMs + hourMs);
}

/** The months (UTC) of a story: "2026-02". */
export function monthsOf({ fromMs, toMs }: Story): string[] {
  const months: string[] = [];
  for (let atMs = fromMs; atMs < toMs; atMs += dayMs) months.push(new Date(atMs).toISOString().slice(0, 7));
  months.push(new Date(toMs - 1).toISOString().slice(0, 7));
  return [...new Set(months)];
}
