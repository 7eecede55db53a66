import { describe, expect, test } from "vitest";
import type { IncomingMessage, StoreOutcome } from "./store-messages.ts";
import { storePatiently, type Patience } from "./store-patiently.ts";

const outcome: StoreOutcome = {
  acknowledgements: [],
  samplesStored: 0,
  samplesLate: 0,
  verdicts: [],
  rejected: [],
  deadLetters: [],
};
const messages = ["a", "b", "c"].map((name): IncomingMessage => ({
  nodeId: name,
  payload: new Uint8Array(),
  receivedAtMs: 0,
}));
const away = new Error("connect ECONNREFUSED");
const refused = (state: string) => Object.assign(new Error(`state ${state}`), { code: state });
const describeGroup = (group: readonly IncomingMessage[]) =>
  group.map((m) => (m.poison === undefined ? m.nodeId : `${m.nodeId}!`)).join("");

/** Answers each attempt with what `fate` says of its group; notes all that happens. */
async function run(
  fate: (group: string, attempt: number) => Error | undefined,
  signal = new AbortController().signal,
): Promise<string[]> {
  const log: string[] = [];
  let attempts = 0;
  const patience: Patience = {
    async store(group) {
      const error = fate(describeGroup(group), ++attempts);
      if (error !== undefined) throw error;
      log.push(`stored ${describeGroup(group)}`);
      return outcome;
    },
    stored: () => log.push("acknowledged"),
    failed: (error) => log.push(`failed ${error instanceof Error ? error.message : ""}`),
    dropped: (message) => log.push(`dropped ${message.nodeId}`),
    signal,
  };
  await storePatiently(messages, patience);
  return log;
}

describe("storePatiently", () => {
  test("acknowledges after storing", async () => {
    expect(await run(() => undefined)).toEqual(["stored abc", "acknowledged"]);
  });

  test("tries again while the database is away or busy", async () => {
    const log = await run((_group, attempt) => [away, refused("57P03"), refused("40P01")][attempt - 1]);
    expect(log).toEqual([
      `failed ${away.message}`,
      "failed state 57P03",
      "failed state 40P01",
      "stored abc",
      "acknowledged",
    ]);
  });

  test("finds the message that the database refuses, and keeps it aside", async () => {
    const log = await run((group) => (group.includes("b") && !group.includes("!") ? refused("23505") : undefined));
    expect(log.filter((line) => line.startsWith("stored"))).toEqual(["stored a", "stored b!", "stored c"]);
  });

  test("an outage while looking for it does not make others guilty", async () => {
    let outages = 1;
    const log = await run((group) => {
      if (group === "a" && outages-- > 0) return away;
      return group.includes("b") && !group.includes("!") ? refused("22003") : undefined;
    });
    expect(log.filter((line) => line.startsWith("stored"))).toEqual(["stored a", "stored b!", "stored c"]);
  });

  test("lets go of what cannot even be kept aside, without acknowledging it", async () => {
    const log = await run((group) => (group.includes("b") ? refused("23503") : undefined));
    expect(log.filter((line) => !line.startsWith("stored"))).toEqual(["acknowledged", "dropped b", "acknowledged"]);
  });

  test("ends when it is told to", async () => {
    const stopping = new AbortController();
    const log = await run(() => {
      stopping.abort();
      return away;
    }, stopping.signal);
    expect(log).toEqual([`failed ${away.message}`]);
  });
});
