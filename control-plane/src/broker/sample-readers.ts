/** Those who read the samples of all nodes at the broker, and the messages that wait for a first one. */
export class SampleReaders<Reader> {
  readonly #readers = new Set<Reader>();
  readonly #waiting = new Set<() => void>();

  add(reader: Reader): void {
    this.#readers.add(reader);
    this.releaseAll();
  }

  delete(reader: Reader): void {
    this.#readers.delete(reader);
  }

  get isRead(): boolean {
    return this.#readers.size > 0;
  }

  /** Calls back at once while somebody reads, else when somebody does, and in any case after `waitMs`. */
  whenRead(waitMs: number, callback: () => void): void {
    if (this.isRead) return callback();
    const release = (): void => {
      clearTimeout(timer);
      this.#waiting.delete(release);
      callback();
    };
    const timer = setTimeout(release, waitMs);
    this.#waiting.add(release);
  }

  releaseAll(): void {
    for (const release of this.#waiting) release();
  }
}
