import { createTransport } from "nodemailer";
import type { DeliveryOutcome } from "./decide-attempt.ts";
import type { EmailPayload } from "./enqueue-notification.ts";
import { within } from "./within.ts";

/** The mail server, as configured. */
export interface MailSettings {
  /** `smtp://[user:password@]host[:port]` (STARTTLS where offered) or `smtps://` (TLS from the first byte). */
  readonly smtpUrl: string;
  /** Sender of all mail. */
  readonly from: string;
}

/** Sends mail. */
export interface Mailer {
  /** Never throws: what goes wrong is the outcome. The id makes a mail that is sent twice the same mail. */
  send(id: string, to: string, payload: EmailPayload): Promise<DeliveryOutcome>;
  close(): void;
}

/** Longest silence of the server at any point. */
const silenceMaxMs = 8_000;
/** For a whole mail: a server that says a little now and then is never silent. Less than a message's lease. */
const mailMaxMs = 45_000;

/** Prepares to send; the server is connected to when there is something to send. */
export function openMailer(settings: MailSettings, deadlineMs = mailMaxMs): Mailer {
  const url = new URL(settings.smtpUrl);
  const secure = url.protocol === "smtps:";
  const transport = createTransport({
    host: url.hostname,
    port: url.port === "" ? (secure ? 465 : 587) : Number(url.port),
    secure,
    ...(url.username === ""
      ? {}
      : { auth: { user: decodeURIComponent(url.username), pass: decodeURIComponent(url.password) } }),
    connectionTimeout: silenceMaxMs,
    greetingTimeout: silenceMaxMs,
    socketTimeout: silenceMaxMs,
    dnsTimeout: silenceMaxMs,
    // A message is text that we made; nothing in it may make us read files or URLs.
    disableFileAccess: true,
    disableUrlAccess: true,
  });
  return {
    async send(id, to, { subject, text }) {
      const messageId = `<${id}@${
        settings.from
          .split("@")
          .at(-1)
          ?.replace(/[^A-Za-z0-9.-]/g, "") ?? "cloudpods"
      }>`;
      const signal = AbortSignal.timeout(deadlineMs);
      try {
        const mail = { from: settings.from, to: { name: "", address: to }, subject, text, messageId };
        await within(signal, transport.sendMail(mail));
        return { kind: "delivered" };
      } catch (error) {
        if (!signal.aborted) return outcomeOf(error);
        return { kind: "failed", code: "EMAIL_TIMEOUT", message: `The mail was not taken within ${deadlineMs} ms` };
      }
    },
    close: () => transport.close(),
  };
}

/** RFC 5321, 4.2.1: 5yz is permanent. Only for the recipient or the message: a refused sign-in is a fault of ours. */
function outcomeOf(error: unknown): DeliveryOutcome {
  const known = error instanceof Error ? error : new Error(String(error));
  const status = "responseCode" in known && typeof known.responseCode === "number" ? known.responseCode : undefined;
  const code = "code" in known && typeof known.code === "string" ? known.code : "unknown";
  const permanent = status !== undefined && status >= 500 && (code === "EENVELOPE" || code === "EMESSAGE");
  // The server's own words may quote the message; its code is enough to look it up there.
  const message =
    status === undefined ? `The mail server cannot be used (${code})` : `The mail server answered ${status}`;
  return { kind: permanent ? "refused" : "failed", code: permanent ? "EMAIL_REFUSED" : "EMAIL_FAILED", message };
}
