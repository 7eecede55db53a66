/** One event of a stream. */
export interface StreamedEvent {
  readonly id: string;
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Reads a stream of events (text/event-stream) to its end. @throws Error when it does not end in time */
export async function readEvents(
  url: string,
  headers: Readonly<Record<string, string>>,
  deadlineMs = 120_000,
): Promise<StreamedEvent[]> {
  const answer = await fetch(url, { headers, signal: AbortSignal.timeout(deadlineMs) });
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}: ${await answer.text()}`);
  const blocks = (await answer.text()).split("\n\n");
  return blocks.flatMap((block) => {
    const lines = block.split("\n").map((line) => line.split(/: (.*)/));
    const field = (name: string): string | undefined => lines.find(([key]) => key === name)?.[1];
    const data = field("data");
    return data === undefined ? [] : [{ id: field("id") ?? "", event: field("event") ?? "", data: JSON.parse(data) }];
  });
}
