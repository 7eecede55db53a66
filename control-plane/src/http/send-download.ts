import type { Download } from "./download.ts";
import type { StreamLife } from "./send-events.ts";

/** Sends a text as it is made; see `download` for how it ends. */
export function sendDownload(
  { fileName, parts }: Download,
  mediaType: string,
  life: Pick<StreamLife, "watch" | "listener" | "shutdown">,
): Response {
  const revoked = new AbortController();
  const unwatch = life.watch.watch(life.listener, () => revoked.abort(new Error("the credential has ended")));
  const ended = AbortSignal.any([revoked.signal, life.shutdown]);
  const iterator = parts[Symbol.asyncIterator]();
  const encoder = new TextEncoder();

  async function finish(): Promise<void> {
    unwatch();
    await iterator.return?.();
  }

  const stream = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const next = await iterator.next();
        ended.throwIfAborted();
        if (next.done !== true) return controller.enqueue(encoder.encode(next.value));
        unwatch();
        controller.close();
      } catch (error) {
        await finish();
        controller.error(error);
      }
    },
    cancel: finish,
  });
  return new Response(stream, {
    headers: {
      "content-type": `${mediaType}; charset=utf-8`,
      "content-disposition": `attachment; filename="${fileName}"`,
      "cache-control": "no-store",
    },
  });
}
