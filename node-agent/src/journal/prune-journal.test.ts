import { expect, test } from "vitest";
import { createDisciplinedClock } from "../clock/disciplined-clock.ts";
import { openJournalFile } from "./open-journal.ts";
import { pruneJournal } from "./prune-journal.ts";
import { createJournal } from "./sqlite-journal.ts";

const dayMs = 86_400_000;
const nowMs = 1_700_000_000_000;

test("nothing is pruned by a clock that nobody has confirmed, and later only what was confirmed long ago", () => {
  const journal = createJournal(openJournalFile(":memory:").database);
  const acceptedIn = { bootId: "boot", monotonicMs: 0 };
  for (const [commandId, confirmedAtMs] of [
    ["old", nowMs - 31 * dayMs],
    ["young", nowMs - 29 * dayMs],
  ] as const) {
    const row = { commandId, operation: "x", podId: "", vmid: 0, envelope: new Uint8Array(), acceptedIn };
    // Both ended before the first contact, by a clock that stood in 1970.
    journal.accept({ ...row, acceptedAtMs: 5 }, undefined);
    journal.finish(commandId, new Uint8Array([1]), 7);
    journal.confirm(commandId, confirmedAtMs);
  }
  // The host's own clock is two months ahead.
  const clock = createDisciplinedClock({ bootId: "boot", monotonicMs: () => 0, wallMs: () => nowMs + 60 * dayMs });
  expect(pruneJournal(journal, clock)).toBe(0);
  clock.recordExchange({ sentMonotonicMs: 0, receivedMonotonicMs: 0, serverTimeMs: nowMs });
  expect(pruneJournal(journal, clock)).toBe(1);
  expect(journal.find("young")).toBeDefined();
  expect(journal.find("old")).toBeUndefined();
});
