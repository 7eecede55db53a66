import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { ApiRefusal, UnreachableError } from "../errors.ts";
import { endpoints, type AnswerOf, type Endpoint, type EndpointName, type InputOf } from "./endpoints.ts";
import { parseEvents } from "./event-stream.ts";
import { readAnswer } from "./read-answer.ts";
import { retryDelayMs } from "./retry-rule.ts";
import { unreachable } from "./unreachable.ts";
import { taskEvent } from "./shapes.ts";
import type { z } from "zod";

/** An answer, as it is read and as it came. */
export interface Answer<Body> {
  readonly body: Body;
  /** JSON; empty when there is no body. */
  readonly text: string;
}

/** A line of a task's story and its number. */
export type TaskEvent = z.output<typeof taskEvent> & { readonly id: string | undefined };

/** The way to one control plane with one credential. */
export interface Api {
  /** @throws ApiRefusal, UnreachableError */
  call<Name extends EndpointName>(name: Name, input: InputOf<Name>): Promise<Answer<AnswerOf<Name>>>;
  /** A task's story from after an event; ends when the server ends it. @throws as `call`, without trying again */
  taskEvents(taskId: string, lastEventId: string | undefined, signal: AbortSignal): AsyncIterable<TaskEvent>;
}

/** What a way to a control plane is made of. */
export interface ApiOptions {
  readonly baseUrl: string;
  readonly token: string | undefined;
  /** Tenant to act in; undefined: as the credential says. */
  readonly tenantId: string | undefined;
  /** Of a request with all its attempts. */
  readonly deadlineMs: number;
  /** Told before a request is sent again. */
  readonly onRetry: (reason: string) => void;
}

// A little more than the control plane gives itself.
const attemptDeadlineMs = 35_000;
// The control plane says every 15 s that a stream is still there.
const streamSilenceMs = 40_000;

/** Opens the way; nothing is sent yet. */
export function createApi(options: ApiOptions): Api {
  return {
    async call(name, input) {
      const endpoint: Endpoint = endpoints[name];
      const text = await sendPatiently(options, endpoint, input);
      const parsed = readAnswer(endpoint.answer, text);
      if (!parsed.success)
        throw new Error(
          `${endpoint.method.toUpperCase()} ${endpoint.path} answered in a form that this version does not know`,
          { cause: parsed.error },
        );
      // The shape that was parsed with is the one of this name.
      return { text, body: parsed.data as never };
    },
    async *taskEvents(taskId, lastEventId, signal) {
      const url = new URL(`/api/tasks/${encodeURIComponent(taskId)}/events`, options.baseUrl);
      const headers = {
        ...headersOf(options),
        accept: "text/event-stream",
        ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }),
      };
      for await (const event of parseEvents(streamOf(url, headers, signal))) {
        const parsed = taskEvent.safeParse(JSON.parse(event.data));
        if (parsed.success) yield { ...parsed.data, id: event.id };
      }
    },
  };
}

interface Request {
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly body?: unknown;
  readonly idempotencyKey?: string | undefined;
}

/** Every endpoint may be sent twice: those that would do it twice have a key. */
async function sendPatiently(options: ApiOptions, endpoint: Endpoint, input: Request): Promise<string> {
  const key = endpoint.idempotent ? (input.idempotencyKey ?? randomUUID()) : undefined;
  const url = urlOf(options.baseUrl, endpoint, input);
  const init = {
    method: endpoint.method.toUpperCase(),
    headers: {
      ...headersOf(options),
      ...(key === undefined ? {} : { "idempotency-key": key }),
      ...(input.body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(input.body === undefined ? {} : { body: JSON.stringify(input.body) }),
  };
  const endMs = performance.now() + options.deadlineMs;
  for (let attempt = 1; ; attempt++) {
    try {
      return await sendOnce(url, init, Math.min(attemptDeadlineMs, Math.max(1, Math.ceil(endMs - performance.now()))));
    } catch (error) {
      const leftMs = endMs - performance.now();
      const delayMs = retryDelayMs(error, { attempt, leftMs, random: Math.random() });
      if (delayMs === undefined) throw keyTold(error, key);
      options.onRetry(error instanceof Error ? error.message : String(error));
      await sleep(delayMs);
    }
  }
}

/** Whoever gives up may have been heard all the same: with the key he can ask again without ordering twice. */
function keyTold(error: unknown, key: string | undefined): unknown {
  if (!(error instanceof UnreachableError) || key === undefined) return error;
  return new UnreachableError(`${error.message} (Idempotency-Key ${key})`, error.isPassing, error.cause);
}

function urlOf(baseUrl: string, endpoint: Endpoint, input: Request): URL {
  const values: Readonly<Record<string, unknown>> = { ...input };
  const path = endpoint.path.replaceAll(/:([a-z]+)/g, (_, name: string) => encodeURIComponent(String(values[name])));
  const url = new URL(path, baseUrl);
  for (const [name, value] of Object.entries(input.query ?? {}))
    if (value !== undefined) url.searchParams.set(name, String(value));
  if (endpoint.dryRun) url.searchParams.set("dryRun", "true");
  return url;
}

function headersOf({ token, tenantId }: ApiOptions): Record<string, string> {
  return {
    "user-agent": "cloudpods-cli",
    ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    ...(tenantId === undefined ? {} : { "x-tenant-id": tenantId }),
  };
}

async function sendOnce(url: URL, init: RequestInit, deadlineMs: number): Promise<string> {
  try {
    // The credential is for this server, not for where it may send us.
    const response = await fetch(url, { ...init, redirect: "manual", signal: AbortSignal.timeout(deadlineMs) });
    const text = await response.text();
    if (!response.ok) throw refusalOf(url, response, text);
    return text;
  } catch (error) {
    throw error instanceof ApiRefusal || error instanceof UnreachableError ? error : unreachable(url, error);
  }
}

async function* streamOf(url: URL, headers: Record<string, string>, signal: AbortSignal): AsyncGenerator<string> {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), streamSilenceMs);
  try {
    const response = await fetch(url, {
      headers,
      redirect: "manual",
      signal: AbortSignal.any([signal, silence.signal]),
    });
    if (!response.ok || response.body === null) throw refusalOf(url, response, await response.text());
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), streamSilenceMs);
      yield piece;
    }
  } catch (error) {
    throw error instanceof ApiRefusal || error instanceof UnreachableError ? error : unreachable(url, error);
  } finally {
    clearTimeout(timer);
  }
}

function refusalOf(url: URL, response: Response, text: string): Error {
  if (response.status >= 300 && response.status < 400) {
    const target = response.headers.get("location") ?? "elsewhere";
    return new UnreachableError(`${url.origin} sends its callers to ${target}: name that address`, false);
  }
  const retryAfter = Number(response.headers.get("retry-after") ?? Number.NaN);
  const retryAfterMs = Number.isFinite(retryAfter) ? retryAfter * 1_000 : undefined;
  return new ApiRefusal(problemOf(response, text), text, retryAfterMs);
}

/** What something between us and the control plane answered has no problem document. */
function problemOf(response: Response, text: string): ApiRefusal["problem"] {
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null && "error" in parsed && "detail" in parsed) {
      // The document's form is held by the control plane's own tests.
      return { ...(parsed as ApiRefusal["problem"]), status: response.status };
    }
  } catch {
    // not JSON
  }
  const detail = `The answer was ${response.status} ${response.statusText}: ${text.slice(0, 200)}`;
  return { status: response.status, title: response.statusText, detail, error: "ANSWER_UNREADABLE" };
}
