/** One event of a stream (text/event-stream). */
export interface StreamedEvent {
  readonly id: string | undefined;
  readonly data: string;
}

/** Reads events out of text that comes in pieces of any size; comments are skipped. */
export async function* parseEvents(pieces: AsyncIterable<string>): AsyncGenerator<StreamedEvent> {
  let rest = "";
  let id: string | undefined;
  let data: string[] = [];
  for await (const piece of pieces) {
    // A piece may end between CR and LF.
    const lines = (rest + piece).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (data.length > 0) yield { id, data: data.join("\n") };
        data = [];
        continue;
      }
      const [, name, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
      if (name === "id") id = value;
      if (name === "data") data.push(value);
    }
  }
}
