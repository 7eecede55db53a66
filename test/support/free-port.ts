import { createServer, type Server } from "node:net";

/** Below the ports that this machine's own connections leave from (from 32768 on): they would take a free one at any moment. */
const [firstPort, portCount] = [15_000, 17_000];

/** Whose names keep ports for this process. */
const kept = new Set<Server>();

/**
 * A port of this machine that nobody listens on, kept for this process: no other test that runs beside it gets the same one, and
 * a server may leave it and come back to it.
 */
export async function freePort(): Promise<number> {
  const start = Math.floor(Math.random() * portCount);
  for (let tried = 0; tried < portCount; tried += 1) {
    const port = firstPort + ((start + tried) % portCount);
    // The name ends with the process that holds it. Programs that are no tests ask nobody: hence the second look.
    if (!(await listens({ path: `\0cloudpods-test-port-${port}` }, "keep"))) continue;
    if (await listens({ port, host: "0.0.0.0" }, "close")) return port;
  }
  throw new Error("no free port");
}

async function listens(where: { path: string } | { port: number; host: string }, then: "keep" | "close") {
  const server = createServer();
  const isListening = await new Promise<boolean>((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(where, () => resolve(true));
  });
  if (!isListening) return false;
  if (then === "keep") kept.add(server.unref());
  else await new Promise((resolve) => server.close(resolve));
  return true;
}
