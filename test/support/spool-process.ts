/**
 * A process that works on a spool until it is killed: appends ticks, takes offers, and tells each
 * thing once it is done, as lines of JSON. `spool-process.ts PATH LIMIT_BYTES`.
 */
import { createHash } from "node:crypto";
import { writeSync } from "node:fs";
import { flushCompileCache } from "node:module";
import { Sample } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { createDisciplinedClock } from "../../node-agent/src/clock/disciplined-clock.ts";
import { openSpool } from "../../node-agent/src/spool/spool.ts";

// It ends by a kill.
flushCompileCache();
const [path = "", limitBytes = "1e9"] = process.argv.slice(2);
let nowMs = 1_000_000;
const clock = createDisciplinedClock({ bootId: "boot-1", monotonicMs: () => nowMs });
clock.recordExchange({ sentMonotonicMs: nowMs, receivedMonotonicMs: nowMs, serverTimeMs: 1_700_000_000_000 });
const spool = openSpool({ path, clock, limitBytes: Number(limitBytes), log: { warn: () => undefined } });
spool.startSession(-1n);
nowMs += Number(spool.nextSeq()) * 60_000;

const tell = (fact: object): number => writeSync(1, `${JSON.stringify(fact)}\n`);

for (;;) {
  const fromMs = nowMs;
  nowMs += 60_000;
  const seq = Number(spool.nextSeq());
  spool.append({
    samples: [
      Sample.fromPartial({
        podId: "pod",
        startMs: BigInt(fromMs),
        endMs: BigInt(nowMs),
        cpuUsageUs: 7n,
        sampleCount: 1,
        incarnation: "x".repeat(1000),
      }),
    ],
    coversFromMonotonicMs: fromMs,
    coversToMonotonicMs: nowMs,
    unreadableVmids: [],
    samplerState: Buffer.from(String(nowMs)),
  });
  tell({ appended: seq });
  if (seq % 3 === 0) {
    for (const { seqFrom, seqTo, payload } of spool.takeOffers()) {
      const digest = createHash("sha256").update(payload).digest("hex");
      tell({ offered: [Number(seqFrom), Number(seqTo)], digest });
    }
  }
}
