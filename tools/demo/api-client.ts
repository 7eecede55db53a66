/** An answer that was not a success, with the problem's own words. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, detail: string) {
    super(`${status} ${code}: ${detail}`);
    this.status = status;
    this.code = code;
  }
}

/** The demo's way to the API: what a customer would do with curl. */
export interface ApiClient {
  /** Sends a request and gives the answer's body; `Answer` is what the route's schema promises. */
  request<Answer>(
    method: string,
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<Answer>;
}

const deadlineMs = 15_000;

/** A client for one credential. */
export function createApiClient(baseUrl: string, token?: string): ApiClient {
  return {
    async request<Answer>(
      method: string,
      path: string,
      body?: unknown,
      headers: Readonly<Record<string, string>> = {},
    ) {
      const response = await fetch(new URL(path, baseUrl), {
        method,
        signal: AbortSignal.timeout(deadlineMs),
        headers: {
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { "content-type": "application/json" }),
          ...headers,
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      if (!response.ok) throw refusal(response.status, text);
      // The schema of the route is held by the server's own tests.
      return (text === "" ? undefined : JSON.parse(text)) as Answer;
    },
  };
}

function refusal(status: number, text: string): ApiError {
  try {
    const problem: unknown = JSON.parse(text);
    if (typeof problem === "object" && problem !== null && "error" in problem && "detail" in problem) {
      return new ApiError(status, String(problem.error), String(problem.detail));
    }
  } catch {
    // not a problem document
  }
  return new ApiError(status, "UNREADABLE", text.slice(0, 200));
}

/** Asks until the answer is as wanted. @throws Error naming what was waited for. */
export async function until<T>(what: string, timeoutMs: number, ask: () => Promise<T | undefined>): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs / 1_000} s in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
