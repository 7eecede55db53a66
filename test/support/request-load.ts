import type { Replica } from "./stack-replica.ts";

/** One answer under load; status 0: the connection was refused or broke. */
export interface LoadAnswer {
  readonly atMs: number;
  readonly tookMs: number;
  readonly status: number;
  readonly code: string | undefined;
  readonly retryAfter: string | null;
}

/** Requests that go on until they are stopped. */
export interface RequestLoad {
  readonly answers: readonly LoadAnswer[];
  stop(): Promise<void>;
}

const pauseMs = 25;

/** A reader and a writer that ask without an end, one request after the other, whatever is answered. */
export function startRequestLoad(replica: Replica, token: string, pod: { readonly id: string }): RequestLoad {
  const stopping = new AbortController();
  const answers: LoadAnswer[] = [];
  const repeat = async (ask: (round: number) => Promise<Response>): Promise<void> => {
    for (let round = 0; !stopping.signal.aborted; round += 1) {
      const atMs = Date.now();
      const answer = await ask(round).then(described, () => ({ status: 0, code: undefined, retryAfter: null }));
      answers.push({ atMs, tookMs: Date.now() - atMs, ...answer });
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  };
  const authorization = `Bearer ${token}`;
  const running = [
    repeat(() => fetch(`${replica.url}/api/cloud-pods`, { headers: { authorization } })),
    repeat((round) =>
      fetch(`${replica.url}/api/cloud-pods/${pod.id}`, {
        method: "PUT",
        headers: { authorization, "content-type": "application/json" },
        body: JSON.stringify({ name: `Round ${round}` }),
      }),
    ),
  ];
  return {
    answers,
    async stop() {
      stopping.abort();
      await Promise.all(running);
    },
  };
}

async function described(answer: Response): Promise<Pick<LoadAnswer, "status" | "code" | "retryAfter">> {
  const body: unknown = await answer.json();
  const code = typeof body === "object" && body !== null && "error" in body ? String(body.error) : undefined;
  return { status: answer.status, code, retryAfter: answer.headers.get("retry-after") };
}
