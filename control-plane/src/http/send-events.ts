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

/** Sends events as they come; the next is asked for when the client has taken the last. */
export function sendEvents(source: NonNullable<Answer["events"]>, life: StreamLife): Response {
  const gone = new AbortController();
  const ended = AbortSignal.any([gone.signal, life.shutdown]);
  const endOfStream = Promise.withResolvers<"end">();
  ended.addEventListener("abort", () => endOfStream.resolve("end"), { once: true });
  if (ended.aborted) endOfStream.resolve("end");
  const unwatch = life.watch.watch(life.listener, () => gone.abort());
  const events = source({ lastEventId: life.lastEventId, signal: ended })[Symbol.asyncIterator]();
  const encoder = new TextEncoder();
  let next: Promise<IteratorResult<ServerSentEvent>> | undefined;

  function finish(): void {
    unwatch();
    gone.abort();
    // A source that waits ends by its signal; `return` alone would wait for it.
    void Promise.resolve(events.return?.()).catch(() => {});
  }

  const stream = new ReadableStream<Uint8Array>({
    async pull(controller) {
      next ??= events.next();
      next.catch(() => {}); // reported by the race below, or nobody listens any more
      const silence = Promise.withResolvers<"comment">();
      const timer = setTimeout(() => silence.resolve("comment"), commentEveryMs);
      try {
        const winner = await Promise.race([endOfStream.promise, next, silence.promise]);
        if (winner === "comment") return controller.enqueue(encoder.encode(": still here\n\n"));
        if (winner === "end" || winner.done === true) {
          finish();
          return controller.close();
        }
        next = undefined;
        controller.enqueue(encoder.encode(format(winner.value)));
      } catch (error) {
        finish();
        controller.error(error);
      } finally {
        clearTimeout(timer);
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
