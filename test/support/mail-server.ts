import type { AddressInfo } from "node:net";
import { SMTPServer } from "smtp-server";

/** A mail as it arrived. */
interface ArrivedMail {
  readonly from: string;
  readonly to: readonly string[];
  /** Headers and body as sent. */
  readonly text: string;
}

/** A real SMTP server whose mood the test decides. */
export interface MailServer {
  readonly url: string;
  readonly arrived: readonly ArrivedMail[];
  /** Status that recipients are answered with from now on; undefined: accepted. */
  refuse(status: number | undefined): void;
  close(): Promise<void>;
}

/** Starts a mail server on a free port. */
export async function startMailServer(): Promise<MailServer> {
  const arrived: ArrivedMail[] = [];
  let refusal: number | undefined;
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ["STARTTLS", "AUTH"],
    onRcptTo(_address, _session, callback) {
      callback(refusal === undefined ? null : Object.assign(new Error("not now"), { responseCode: refusal }));
    },
    onData(stream, session, callback) {
      const parts: Buffer[] = [];
      stream.on("data", (part: Buffer) => parts.push(part));
      stream.on("end", () => {
        const { mailFrom, rcptTo } = session.envelope;
        arrived.push({
          from: mailFrom === false || mailFrom === null ? "" : mailFrom.address,
          to: rcptTo.map((recipient) => recipient.address),
          text: Buffer.concat(parts).toString(),
        });
        callback(null);
      });
    },
  });
  // A client that goes away in the middle is the client's affair.
  server.on("error", () => {});
  const listening = await new Promise<AddressInfo>((resolve) => {
    const listener = server.listen(0, "127.0.0.1", () => resolve(listener.address() as AddressInfo)); // listening on TCP
  });
  return {
    url: `smtp://127.0.0.1:${listening.port}`,
    arrived,
    refuse: (status) => void (refusal = status),
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}
