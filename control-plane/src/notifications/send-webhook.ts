import { request as requestHttp, type IncomingMessage, type RequestOptions } from "node:http";
import { request as requestHttps } from "node:https";
import { isIPv6 } from "node:net";
import type { DeliveryOutcome } from "./decide-attempt.ts";
import { signatureHeader, signWebhook } from "./sign-webhook.ts";
import { addressToReach, webhookUrlFault, type Resolve, type WebhookRules } from "./webhook-target.ts";
import { within } from "./within.ts";

/** One webhook that is ready to go. */
export interface OutgoingWebhook {
  readonly url: string;
  readonly secret: string;
  readonly body: string;
  readonly at: Date;
}

/** How webhooks are sent. */
export interface WebhookSending extends WebhookRules {
  readonly resolve: Resolve;
  /** For looking up, connecting and the answer together. */
  readonly deadlineMs: number;
}

/**
 * Posts a webhook. Any 2xx is a success; redirects are not followed, because their target was not checked.
 * Never throws: what goes wrong is the outcome. What the receiver says is not kept, it may be anything.
 */
export async function sendWebhook(webhook: OutgoingWebhook, sending: WebhookSending): Promise<DeliveryOutcome> {
  const fault = webhookUrlFault(webhook.url, sending);
  if (fault !== undefined) return { kind: "refused", code: "WEBHOOK_TARGET_REFUSED", message: `The URL ${fault}` };
  const url = new URL(webhook.url);
  const signal = AbortSignal.timeout(sending.deadlineMs);
  try {
    const address = await within(signal, addressToReach(url, sending, sending.resolve));
    if (address === undefined) {
      const message = "The name points to a private address or to none";
      return { kind: "refused", code: "WEBHOOK_TARGET_REFUSED", message };
    }
    return outcomeOf(await post(url, address, webhook, signal));
  } catch (error) {
    if (signal.aborted)
      return { kind: "failed", code: "WEBHOOK_TIMEOUT", message: `No answer within ${sending.deadlineMs} ms` };
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown";
    return { kind: "failed", code: "WEBHOOK_UNREACHABLE", message: `Cannot reach the receiver (${code})` };
  }
}

/** Posts to `address`, with the name of the URL in the request and, over TLS, checked against the certificate. */
async function post(url: URL, address: string, webhook: OutgoingWebhook, signal: AbortSignal): Promise<number> {
  const family = isIPv6(address) ? 6 : 4;
  const options: RequestOptions = {
    method: "POST",
    signal,
    // A kept connection could lead to another address than the checked one.
    agent: false,
    lookup: (_hostname, { all }, callback) =>
      all === true ? callback(null, [{ address, family }]) : callback(null, address, family),
    headers: {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(webhook.body),
      "user-agent": "CloudPods-Webhooks/1",
      [signatureHeader]: signWebhook(webhook.secret, webhook.body, webhook.at),
    },
  };
  return await new Promise((resolve, reject) => {
    const answered = (response: IncomingMessage): void => {
      resolve(response.statusCode ?? 0);
      // The status is all that is asked for; a body without an end would hold the connection.
      response.destroy();
    };
    const request =
      url.protocol === "https:" ? requestHttps(url, options, answered) : requestHttp(url, options, answered);
    request.on("error", reject);
    request.end(webhook.body);
  });
}

function outcomeOf(status: number): DeliveryOutcome {
  if (status >= 200 && status < 300) return { kind: "delivered" };
  // RFC 9110, 15.5.11: gone for good, and known to be.
  if (status === 410) return { kind: "refused", code: "WEBHOOK_GONE", message: "The receiver answered 410" };
  const code = status >= 300 && status < 400 ? "WEBHOOK_REDIRECTED" : "WEBHOOK_STATUS";
  return { kind: "failed", code, message: `The receiver answered ${status}` };
}
