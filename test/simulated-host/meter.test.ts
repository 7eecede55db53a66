import fc from "fast-check";
import { expect, test } from "vitest";
import { changeRates, readMeter, startMeter, zeroAmounts } from "./meter.ts";
import type { Amounts } from "./meter.ts";

const rates = (cpuUsec: bigint): Amounts => ({ ...zeroAmounts(), cpuUsec });
const step = fc.record({ rate: fc.bigInt(0n, 10n ** 9n), ns: fc.bigInt(0n, 10n ** 15n) });

test("a meter loses nothing however often its rates change", () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1 }), (steps) => {
      let nowNs = 0n;
      let meter = startMeter(zeroAmounts(), nowNs);
      let exact = 0n;
      for (const { rate, ns } of steps) {
        meter = changeRates(meter, rates(rate), nowNs);
        nowNs += ns;
        exact += rate * ns;
      }
      expect(readMeter(meter, nowNs).cpuUsec).toBe(exact / 1_000_000_000n);
    }),
  );
});

test("a reading never falls", () => {
  fc.assert(
    fc.property(fc.bigInt(0n, 10n ** 9n), fc.bigInt(0n, 10n ** 15n), fc.bigInt(0n, 10n ** 9n), (rate, at, more) => {
      const meter = startMeter(rates(rate), 0n);
      const [early, late] = [readMeter(meter, at), readMeter(meter, at + more)];
      expect(late.cpuUsec).toBeGreaterThanOrEqual(early.cpuUsec);
    }),
  );
});
