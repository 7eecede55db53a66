import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";

/** A request as it arrived. */
interface ArrivedWebhook {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** What the receiver answers; undefined: nothing, ever. */
type WebhookAnswer = { readonly status: number; readonly headers?: Record<string, string> } | undefined;

/** A real HTTP server that webhooks are sent to. */
export interface WebhookReceiver {
  readonly port: number;
  readonly url: string;
  readonly arrived: readonly ArrivedWebhook[];
  /** Decides the answers from now on; default 204 to everything. */
  answer(how: (webhook: ArrivedWebhook) => WebhookAnswer): void;
  close(): Promise<void>;
}

/** Starts a receiver on a free port. */
export async function startWebhookReceiver(): Promise<WebhookReceiver> {
  const arrived: ArrivedWebhook[] = [];
  let decide: (webhook: ArrivedWebhook) => WebhookAnswer = () => ({ status: 204 });
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const webhook = { path: request.url ?? "", headers: request.headers, body: Buffer.concat(parts).toString() };
      arrived.push(webhook);
      const answer = decide(webhook);
      if (answer !== undefined) response.writeHead(answer.status, answer.headers).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // listening on TCP
  return {
    port,
    url: `http://127.0.0.1:${port}/hook`,
    arrived,
    answer: (how) => void (decide = how),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
