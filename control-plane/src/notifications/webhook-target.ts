import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { DomainError } from "@cloudpods/shared/errors";
import { isPublicAddress } from "./public-address.ts";

/** Where webhooks may go. */
export interface WebhookRules {
  /** Lets webhooks go to private addresses and over plain HTTP: for development and for networks of one's own. */
  readonly allowPrivate: boolean;
}

/** Finds every address of a name. */
export type Resolve = (hostname: string) => Promise<readonly string[]>;

/** What the system's resolver says. */
export const resolveWithSystem: Resolve = async (hostname) =>
  (await lookup(hostname, { all: true })).map((found) => found.address);

/** Longest URL that is kept. */
export const webhookUrlMax = 2_000;

/** What is wrong with a URL as a webhook's target, as far as it can be told without asking anyone; undefined: nothing. */
export function webhookUrlFault(text: string, rules: WebhookRules): string | undefined {
  const url = URL.parse(text);
  if (url === null || text.length > webhookUrlMax) return "must be a URL";
  if (url.protocol !== "https:" && !(rules.allowPrivate && url.protocol === "http:")) return "must be an https URL";
  if (url.username !== "" || url.password !== "") return "must not hold a user name or password";
  const host = hostOf(url);
  if (isIP(host) !== 0 && !rules.allowPrivate && !isPublicAddress(host)) return "must not point to a private address";
  return undefined;
}

/**
 * Refuses a URL of a request's body that no webhook can go to; null is fine.
 * @throws DomainError `invalid` WEBHOOK_TARGET_REFUSED naming what is wrong with it
 */
export function requireWebhookUrl(url: string | null, pointer: string, rules: WebhookRules): void {
  const fault = url === null ? undefined : webhookUrlFault(url, rules);
  if (fault === undefined) return;
  const message = `A webhook's URL ${fault}.`;
  throw new DomainError("invalid", "WEBHOOK_TARGET_REFUSED", message, { errors: [{ pointer, detail: fault }] });
}

/** Host of a URL as a name or an address; IPv6 without its brackets. */
export function hostOf(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, "$1");
}

/**
 * The address to connect to, or undefined when the target must not be reached. Every address of the name is looked
 * at, and the caller connects to the very one that is given: asking the resolver again could give another.
 * @throws what the resolver throws
 */
export async function addressToReach(url: URL, rules: WebhookRules, resolve: Resolve): Promise<string | undefined> {
  const host = hostOf(url);
  const addresses = isIP(host) === 0 ? await resolve(host) : [host];
  if (!rules.allowPrivate && !addresses.every(isPublicAddress)) return undefined;
  return addresses[0];
}
