import { AgentError, messageOf } from "../agent-error.ts";

/** An answer that is larger than this is not one of ours. */
const maxAnswerBytes = 1_000_000;
const requestTimeoutMs = 20_000;

/** Status and parsed body of an answer. */
export interface HttpAnswer {
  readonly status: number;
  readonly body: unknown;
}

/**
 * One JSON request to the control plane's HTTP API.
 *
 * @throws AgentError CONTROL_PLANE_UNREACHABLE (retryable) when no JSON answer came.
 */
export async function callControlPlane(serverUrl: string, path: string, body: object | undefined): Promise<HttpAnswer> {
  try {
    const response = await fetch(new URL(path, withSlash(serverUrl)), {
      method: body === undefined ? "GET" : "POST",
      headers: {
        accept: "application/json",
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      redirect: "error",
      signal: AbortSignal.timeout(requestTimeoutMs),
    });
    const text = await response.text();
    if (text.length > maxAnswerBytes) throw new Error("the answer is too large");
    return { status: response.status, body: text === "" ? undefined : JSON.parse(text) };
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? `: ${error.cause.message}` : "";
    throw new AgentError("CONTROL_PLANE_UNREACHABLE", `${serverUrl}: ${messageOf(error)}${cause}`, {
      retryable: true,
      cause: error,
    });
  }
}

/**
 * The body of a 2xx answer.
 *
 * @throws AgentError with the problem's own code (`error` of the problem document) otherwise;
 * retryable for 408, 429 and 5xx.
 */
export function expectSuccess(answer: HttpAnswer): unknown {
  if (answer.status >= 200 && answer.status < 300) return answer.body;
  const code = textField(answer.body, "error") ?? `HTTP_${answer.status}`;
  const message = textField(answer.body, "message") ?? textField(answer.body, "detail") ?? "no explanation";
  throw new AgentError(code, `The control plane answered ${answer.status}: ${message}`, {
    retryable: answer.status >= 500 || answer.status === 429 || answer.status === 408,
  });
}

/** A text field of an answer. @throws AgentError INVALID_ANSWER when it is missing. */
export function requireText(body: unknown, name: string): string {
  const value = textField(body, name);
  if (value === undefined || value === "") {
    throw new AgentError("INVALID_ANSWER", `The answer of the control plane has no ${name}.`);
  }
  return value;
}

function textField(body: unknown, name: string): string | undefined {
  if (typeof body !== "object" || body === null) return undefined;
  const value: unknown = Object.getOwnPropertyDescriptor(body, name)?.value;
  return typeof value === "string" ? value : undefined;
}

function withSlash(url: string): string {
  return url.endsWith("/") ? url : `${url}/`;
}
