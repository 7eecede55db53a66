import { X509Certificate, createHash, createHmac, randomBytes, randomUUID, verify } from "node:crypto";
import { type IncomingMessage, type ServerResponse, createServer } from "node:http";
import { text } from "node:stream/consumers";
import { type SigningAuthority, issueNodeCertificate } from "../../control-plane/src/nodes/certificate-authority.ts";
import { readCertificateRequest } from "../../control-plane/src/nodes/certificate-request.ts";

/** The enrolment routes of a control plane, over plain HTTP, with everything kept in memory. */
export interface TestEnrolment {
  readonly url: string;
  /** A join token; its pin is that of `authority` unless another is given. */
  makeToken(pinned?: SigningAuthority): string;
  /** The next answers are lost on the way although the request was carried out. */
  loseAnswers(count: number): void;
  /** Requests are carried out and not answered before the returned function is called. */
  holdAnswers(): () => void;
  /** Takes a certificate as the last one that was issued to its node. */
  knowCertificate(nodeId: string, pem: string): void;
  /** Added to the bundle of every answer. */
  addToBundle(pem: string): void;
  /** Added to the vouchers of every answer. */
  addVoucher(pem: string): void;
  /** Bodies of all requests, in order. */
  readonly requests: readonly { readonly path: string; readonly body: Readonly<Record<string, string>> }[];
  stop(): Promise<void>;
}

export interface TestEnrolmentOptions {
  readonly authority: SigningAuthority;
  readonly gatewayAddress: string;
  /** Moment of issue of the certificates; now by default. */
  readonly issuedAt?: () => Date;
}

export async function startTestEnrolment(options: TestEnrolmentOptions): Promise<TestEnrolment> {
  const { authority } = options;
  const tokens = new Map<string, { readonly secretHash: Buffer; answer?: object; csrKey?: string }>();
  const lastCertificates = new Map<string, string>();
  const nonces = new Set<string>();
  const requests: { path: string; body: Record<string, string> }[] = [];
  let bundle = authority.pem;
  let vouchers = "";
  let lost = 0;
  let held = Promise.resolve();

  const issue = async (nodeId: string, csrPem: string): Promise<object> => {
    const { publicKey } = await readCertificateRequest(csrPem);
    const { pem } = await issueNodeCertificate(authority, nodeId, publicKey, options.issuedAt?.() ?? new Date());
    lastCertificates.set(nodeId, pem);
    const { gatewayAddress } = options;
    const brokerUrl = "mqtts://127.0.0.1:1";
    return { nodeId, certificate: pem, caBundle: bundle, vouchers, gatewayAddress, brokerUrl };
  };
  const enrol = async (body: Record<string, string>): Promise<object> => {
    const token = tokens.get(body["tokenId"] ?? "");
    if (token === undefined) throw new Refusal("JOIN_TOKEN_INVALID");
    const csr = await readCertificateRequest(body["csr"] ?? "");
    if (createHmac("sha256", token.secretHash).update(csr.der).digest("hex") !== body["proof"]) {
      throw new Refusal("JOIN_TOKEN_INVALID");
    }
    if (token.csrKey !== undefined && token.csrKey !== csr.spkiSha256) throw new Refusal("JOIN_TOKEN_USED");
    token.csrKey = csr.spkiSha256;
    token.answer ??= await issue(randomUUID(), body["csr"] ?? "");
    return token.answer;
  };
  const renew = async (body: Record<string, string>): Promise<object> => {
    const { nodeId = "", nonce = "", csr = "", signature = "" } = body;
    if (!nonces.delete(nonce)) throw new Refusal("CHALLENGE_INVALID");
    const { der } = await readCertificateRequest(csr);
    const signed = Buffer.from(`${nodeId}\n${nonce}\n${der.toString("base64")}`);
    const { publicKey } = new X509Certificate(lastCertificates.get(nodeId) ?? "");
    if (!verify("sha256", signed, publicKey, Buffer.from(signature, "hex"))) throw new Refusal("SIGNATURE_INVALID");
    return issue(nodeId, csr);
  };
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    const content = await text(request);
    const body: Record<string, string> = content === "" ? {} : JSON.parse(content);
    requests.push({ path: pathname, body });
    const handlers: Record<string, () => Promise<object>> = {
      "/api/nodes/enroll": () => enrol(body),
      "/api/nodes/renew": () => renew(body),
      "/api/nodes/renew/challenge": async () => {
        const nonce = randomBytes(16).toString("hex");
        nonces.add(nonce);
        return { nonce };
      },
    };
    const [status, value] = await (handlers[pathname]?.() ?? Promise.reject(new Refusal("NOT_FOUND"))).then(
      (found) => [200, found] as const,
      (error: unknown) =>
        [401, { error: error instanceof Refusal ? error.message : "INTERNAL", message: "refused" }] as const,
    );
    if (request.method === "POST") await held;
    if (status === 200 && request.method === "POST" && lost > 0) {
      lost -= 1;
      response.destroy();
      return;
    }
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
  };
  const server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}`,
    makeToken(pinned = authority) {
      const [tokenId, secret] = [randomUUID(), randomBytes(24).toString("base64url")];
      tokens.set(tokenId, { secretHash: createHash("sha256").update(secret).digest() });
      return `cp1.${tokenId}.${secret}.${pinned.spkiSha256}`;
    },
    loseAnswers: (count) => void (lost = count),
    holdAnswers() {
      const { promise, resolve } = Promise.withResolvers<void>();
      held = promise;
      return resolve;
    },
    knowCertificate: (nodeId, pem) => void lastCertificates.set(nodeId, pem),
    addToBundle: (pem) => void (bundle += pem),
    addVoucher: (pem) => void (vouchers += pem),
    requests,
    stop: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

class Refusal extends Error {}
