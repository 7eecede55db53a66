import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PacketLengthGuard } from "./limit-packet-bytes.ts";

function packet(bodyBytes: number): Buffer {
  const length: number[] = [];
  let rest = bodyBytes;
  do {
    length.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
    rest >>= 7;
  } while (rest > 0);
  return Buffer.concat([Buffer.from([0x30, ...length]), Buffer.alloc(bodyBytes, 0xff)]);
}

function acceptsInPieces(bytes: Buffer, cuts: readonly number[], bytesMax: number): boolean {
  const guard = new PacketLengthGuard(bytesMax);
  const ends = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].toSorted((a, b) => a - b);
  let start = 0;
  for (const end of [...ends, bytes.length]) {
    if (!guard.accept(bytes.subarray(start, end))) return false;
    start = end;
  }
  return true;
}

describe("PacketLengthGuard", () => {
  test("refuses a stream exactly when one of its packets is too long, however it is cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(600), { minLength: 1, maxLength: 8 }),
        fc.array(fc.nat(), { maxLength: 8 }),
        (sizes, cuts) => {
          const stream = Buffer.concat(sizes.map(packet));
          expect(acceptsInPieces(stream, cuts, 300)).toBe(sizes.every((size) => size <= 300));
        },
      ),
    );
  });

  test("refuses at the length already, before the body is there", () => {
    expect(new PacketLengthGuard(256 * 1024).accept(Buffer.from([0x30, 0xff, 0xff, 0xff, 0x7f]))).toBe(false);
  });

  test("refuses a length that never ends", () => {
    expect(new PacketLengthGuard(1_000_000_000).accept(Buffer.from([0x30, 0x80, 0x80, 0x80, 0x80, 0x80]))).toBe(false);
  });
});
