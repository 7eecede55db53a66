import type { CredentialWatch, Listener } from "../security/credential-watch.ts";
import { bigintAsText } from "./read-request.ts";
import type { ServerSentEvent } from "./event-stream.ts";
import type { Answer } from "./route-table.ts";

// Proxies end connections that are silent for a minute or less.
const commentEveryMs = 15_000;

/** How long a stream may live. */
export interface StreamLife {
  readonly watch: CredentialWatch;
  readonly listener: Listener;
  readonly shutdown: AbortSignal;
  readonly lastEventId: string | undefined;
}

/** An event that the source was asked for. */
interface Asked {
  readonly event: Promise<IteratorResult<ServerSentEvent>>;
  isThere: boolean;
}

/** Sends events as they come; the next is asked for when the client has taken the last. */
export function sendEvents(source: NonNullable<Answer["events"]>, life: StreamLife): Response {
  const gone = new AbortController();
  const ended = AbortSignal.any([gone.signal, life.shutdown]);
  let wake = (): void => {};
  ended.addEventListener("abort", () => wake(), { once: true });
  const unwatch = life.watch.watch(life.listener, () => gone.abort());
  const events = source({ lastEventId: life.lastEventId, signal: ended })[Symbol.asyncIterator]();
  const encoder = new TextEncoder();
  let asked: Asked | undefined;

  function finish(): void {
    unwatch();
    gone.abort();
    // A source that waits ends by its signal; `return` alone would wait for it.
    void Promise.resolve(events.return?.()).catch(() => {});
  }

  function ask(): Asked {
    const mine: Asked = { event: events.next(), isThere: false };
    const arrived = (): void => {
      mine.isThere = true;
      wake();
    };
    mine.event.then(arrived, arrived);
    return mine;
  }

  /** Until the event is there, the stream has ended or a comment is due. A race of promises would leave something behind at each turn of a stream that lives for weeks. */
  async function waitFor(what: Asked): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      wake = resolve;
      timer = setTimeout(resolve, commentEveryMs);
      if (what.isThere || ended.aborted) resolve();
    });
    clearTimeout(timer);
  }

  const stream = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        asked ??= ask();
        await waitFor(asked);
        if (!ended.aborted && !asked.isThere) return controller.enqueue(encoder.encode(": still here\n\n"));
        const next = ended.aborted ? undefined : await asked.event;
        if (next === undefined || next.done === true) {
          finish();
          return controller.close();
        }
        asked = undefined;
        controller.enqueue(encoder.encode(format(next.value)));
      } catch (error) {
        finish();
        controller.error(error);
      }
    },
    cancel: finish,
  });
  // Without `close` an ended stream's connection idles, and a server that ends waits for it.
  return new Response(stream, {
    headers: {
      "content-type": "text/event-stream",
      "cache-control": "no-store",
      "x-accel-buffering": "no",
      connection: "close",
    },
  });
}

/** One event in the form of the HTML standard, section "Server-sent events". JSON has no line breaks of its own. */
function format(event: ServerSentEvent): string {
  const id = event.id === undefined ? "" : `id: ${event.id}\n`;
  const name = event.event === undefined ? "" : `event: ${event.event}\n`;
  return `${id}${name}data: ${JSON.stringify(event.data, bigintAsText)}\n\n`;
}
