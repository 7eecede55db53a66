import type { Duplex } from "node:stream";

/**
 * Follows the framing of an MQTT byte stream without parsing it: each packet is one byte, a length of
 * one to four bytes of seven bits each, and that many more bytes (MQTT 3.1.1, section 2.2).
 */
export class PacketLengthGuard {
  readonly #bytesMax: number;
  #bodyLeft = 0;
  #inLength = false;
  #length = 0;
  #shift = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Takes the next bytes; false when a packet announces more than the limit or a malformed length. */
  accept(chunk: Uint8Array): boolean {
    let at = 0;
    while (at < chunk.length) {
      if (this.#bodyLeft > 0) {
        const skipped = Math.min(this.#bodyLeft, chunk.length - at);
        this.#bodyLeft -= skipped;
        at += skipped;
      } else if (!this.#inLength) {
        this.#inLength = true;
        this.#length = 0;
        this.#shift = 0;
        at++;
      } else if (!this.#acceptLengthByte(chunk[at++] ?? 0)) {
        return false;
      }
    }
    return true;
  }

  #acceptLengthByte(byte: number): boolean {
    this.#length += (byte & 0x7f) << this.#shift;
    this.#shift += 7;
    if (byte < 0x80) {
      this.#inLength = false;
      this.#bodyLeft = this.#length;
    }
    return this.#length <= this.#bytesMax && this.#shift <= 28;
  }
}

/**
 * Ends the connection as soon as a packet announces more than `bytesMax`; the broker's own parser would
 * first collect up to 256 MB of it in memory. The broker pulls with `read`, so that is where we look.
 */
export function limitPacketBytes(connection: Duplex, bytesMax: number, refused: () => void): void {
  const guard = new PacketLengthGuard(bytesMax);
  const read = connection.read.bind(connection);
  connection.read = (size?: number): unknown => {
    const chunk: unknown = read(size);
    if (!(chunk instanceof Uint8Array) || guard.accept(chunk)) return chunk;
    refused();
    connection.destroy();
    return null;
  };
}
