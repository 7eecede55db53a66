import { afterAll, beforeAll, expect, test } from "vitest";
import { verifyMetering } from "../../control-plane/src/metering/verify-metering.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { differences, storedFigures } from "../support/stored-figures.ts";
import { type FaultCounts, monthsOf, retire, runStory, settle } from "../support/story-run.ts";
import { type StoryWorld, startStoryWorld } from "../support/story-world.ts";
import { trueFigures, type TrueFigures } from "../support/usage-truth/true-figures.ts";
import type { StoryOptions } from "../support/usage-truth/tell-story.ts";

/*
 * A story is told from a seed: what some pods do on some hosts for a day (in CI) or for five weeks (`npm run
 * chaos:metering`), with restarts, moves inside a minute, resizes, counters that begin anew or pass 2^53, wall
 * clocks that step by ten minutes, a host that boots again without knowing the time, agents that are away, changes
 * of prices inside an hour, and the ends of a month of 28 (and of 31) days. An oracle that shares no code with the
 * product says what every hour, day and month must come to (test/support/usage-truth).
 *
 * The story is then measured: a process for each host runs the agent's sampling core, spool and telemetry, two
 * replicas ingest and roll up, all in the story's time, over a real Mosquitto and a real PostgreSQL. While it goes
 * on, each of them is killed with SIGKILL and database connections are ended between two statements, batches come
 * twice, in any order and again much later, and a host is offline for long with a spool so small that it merges.
 *
 * In the end everything that is stored equals the truth, money to the tenth place. Left out is, for pods that were on
 * the host with the small spool, the 95th percentile: merging minutes sheds exactly that resolution. How absent
 * time divides into "not running" and "missing", and present time into "measured" and "late", depends on when things
 * arrive: the sums are compared.
 *
 * CLOUDPODS_CHAOS_SEED tells a story again. The full form looks at pods every five minutes, since a minute would
 * need hours (CLOUDPODS_CHAOS_SAMPLE_SECONDS changes it, CLOUDPODS_CHAOS_PODS the number of pods).
 */
const hourMs = 3_600_000;
const seed = Number(process.env["CLOUDPODS_CHAOS_SEED"] ?? Date.now() % 1_000_000);
const isFull = process.env["CLOUDPODS_CHAOS_METERING"] === "full";

interface Form {
  readonly story: StoryOptions;
  readonly faults: FaultCounts;
  readonly stepMs: number;
  readonly deadlineMs: number;
}

/** A day around the end of February. */
const shortForm: Form = {
  story: {
    seed,
    fromMs: Date.UTC(2026, 1, 28, 10),
    toMs: Date.UTC(2026, 2, 1, 10),
    hosts: 3,
    pods: 12,
    sampleMs: 60_000,
    offlineMs: 8 * hourMs,
    smallSpoolBytes: 80_000,
    eventMs: 4 * hourMs,
    absenceMs: 8 * hourMs,
  },
  faults: { agent: 4, replica: 2, broker: 1, postgres: 1, backend: 3 },
  stepMs: hourMs / 2,
  deadlineMs: 900_000,
};

/** From a month of 31 days over February into the next one of 31, a hundred pods. */
const fullForm: Form = {
  story: {
    seed,
    fromMs: Date.UTC(2026, 0, 30),
    toMs: Date.UTC(2026, 2, 3),
    hosts: 5,
    pods: Number(process.env["CLOUDPODS_CHAOS_PODS"] ?? 100),
    sampleMs: Number(process.env["CLOUDPODS_CHAOS_SAMPLE_SECONDS"] ?? 300) * 1_000,
    offlineMs: 90 * hourMs,
    smallSpoolBytes: 300_000,
    eventMs: 30 * hourMs,
    absenceMs: 40 * hourMs,
  },
  faults: { agent: 60, replica: 20, broker: 10, postgres: 8, backend: 60 },
  stepMs: hourMs,
  deadlineMs: 3_600_000,
};

const form = isFull ? fullForm : shortForm;

let world: StoryWorld;
let truth: TrueFigures;
beforeAll(async () => {
  console.log(`story ${seed}`);
  world = await startStoryWorld(form.story);
  const isSmall = (stay: { readonly host: number }): boolean => stay.host === 0;
  truth = trueFigures(world.story, (pod) => !pod.stays.some(isSmall));
}, 240_000);
afterAll(async () => {
  const failures = world.replicas.flatMap((replica) => replica.failures());
  console.log(`passes that failed: ${JSON.stringify([...new Set(failures)])}`);
  await world.dispose();
});

const mergedSamples = sql`SELECT FROM cloud_pod_usage_samples WHERE sample_count > 1 LIMIT 1`;

async function expectTruth(): Promise<void> {
  expect(differences(truth, await storedFigures(world.db)).slice(0, 20)).toEqual([]);
  for (const month of monthsOf(world.story)) expect((await verifyMetering(world.db, month)).findings).toEqual([]);
}

test(
  "whatever dies, usage and cost of every hour, day and month are the truth",
  async () => {
    const died = await runStory(world, {
      seed,
      faults: form.faults,
      stepMs: form.stepMs,
      onProgress: ({ atMs, step, steps }) => {
        if (step % 24 === 0) console.log(`${new Date(atMs).toISOString()}, step ${step} of ${steps}`);
      },
    });
    const mischief = world.agents.map((agent) => agent.meddled());
    console.log(JSON.stringify({ died, mischief }));
    expect(died).toEqual(form.faults);
    await settle(world);
    // An agent that dies before it has told takes its counts with it, so what was stored tells whether the small spool merged.
    expect(await world.db.query(mergedSamples)).not.toEqual([]);
    await expectTruth();
    const lost = await world.db.query(sql`
      SELECT reason FROM telemetry_dead_letters UNION ALL SELECT reason FROM usage_rejected_samples
      UNION ALL SELECT 'gap' FROM node_spool_gaps UNION ALL SELECT 'pending' FROM node_spool_pending`);
    expect(lost).toEqual([]);
  },
  form.deadlineMs,
);

test("and they stay so when days are sealed and archived, and months closed", async () => {
  await retire(world);
  await expectTruth();
}, 900_000);
