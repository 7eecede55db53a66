import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../control-plane/src/platform/embedded-postgres.ts";
import { type DatabaseLogins, createLogins, migrate } from "../../control-plane/src/platform/migrate.ts";
import { signal } from "./processes.ts";
import { startTcpProxy } from "./tcp-proxy.ts";

/** A PostgreSQL of its own that may go away and come back at the same address. */
export interface StoppablePostgres {
  readonly logins: DatabaseLogins;
  /** Ends the server as an administrator does; connections are broken. */
  stop(): Promise<void>;
  /** Ends every process of the server with SIGKILL. */
  kill(): Promise<void>;
  start(): Promise<void>;
  /** Freezes every process of the server: connections stay and nothing answers. */
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  dispose(): Promise<void>;
}

/** Starts the server with a migrated database. What it acknowledged survives a stop, as in production. */
export async function startStoppablePostgres(): Promise<StoppablePostgres> {
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-stoppable-pg-"));
  await chmod(directory, 0o711);
  const proxy = await startTcpProxy();
  let server: EmbeddedPostgres = await startEmbeddedPostgres({ directory });
  proxy.route({ port: server.port });
  const direct = await createLogins(server.superuserUrl, "cloudpods");
  await migrate(direct.systemUrl, direct.apiUrl);
  const signalAll = async (name: NodeJS.Signals): Promise<void> => {
    for (const pid of await processesOf(directory)) signal(pid, name);
  };
  return {
    logins: { systemUrl: through(direct.systemUrl, proxy.port), apiUrl: through(direct.apiUrl, proxy.port) },
    stop: () => server.stop(),
    async kill() {
      await signalAll("SIGKILL");
      await server.stop(); // what is left of it: the lock of its folder
    },
    async start() {
      server = await startEmbeddedPostgres({ directory });
      proxy.route({ port: server.port });
    },
    freeze: () => signalAll("SIGSTOP"),
    thaw: () => signalAll("SIGCONT"),
    async dispose() {
      await signalAll("SIGCONT");
      await server.stop();
      await proxy.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** The server's first process, as its file says, and the children of that. */
async function processesOf(directory: string): Promise<number[]> {
  const first = Number((await readFile(join(directory, "data", "postmaster.pid"), "utf8")).split("\n")[0]);
  const children = await readFile(`/proc/${first}/task/${first}/children`, "utf8");
  return [first, ...children.trim().split(" ").map(Number)];
}

function through(url: string, port: number): string {
  const changed = new URL(url);
  changed.port = String(port);
  return changed.toString();
}
