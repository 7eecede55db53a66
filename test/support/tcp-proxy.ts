import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { freePort } from "./free-port.ts";

/** Where a proxy passes connections on to. */
export interface ProxyTarget {
  readonly host?: string;
  readonly port: number;
}

/**
 * A fixed address in front of servers that come and go: a load balancer, or a name that outlives the
 * port behind it.
 */
export interface TcpProxy {
  readonly port: number;
  /** From now on connections go to these in turn, and to the next one where one does not answer. */
  route(...targets: readonly ProxyTarget[]): void;
  /** Cuts clients off, by the port that they come from: what they have open now and whatever they try. Undefined: nobody. */
  cutOff(isCutOff: ((clientPort: number) => boolean) | undefined): void;
  close(): Promise<void>;
}

/** Starts a proxy on 127.0.0.1, by default on a free port. Without targets it closes what connects. */
export async function startTcpProxy(port?: number): Promise<TcpProxy> {
  let targets: readonly ProxyTarget[] = [];
  let turn = 0;
  let refuses: ((clientPort: number) => boolean) | undefined;
  const clients = new Map<Socket, number>();
  const sockets = new Set<Socket>();
  const keep = (socket: Socket): void => {
    sockets.add(socket);
    socket.on("error", () => {}); // the close that follows ends the other side
    socket.once("close", () => sockets.delete(socket));
  };
  const server = createServer({ pauseOnConnect: true }, (incoming) => {
    keep(incoming);
    const clientPort = incoming.remotePort ?? 0;
    if (refuses?.(clientPort) === true) return void incoming.destroy();
    clients.set(incoming, clientPort);
    incoming.once("close", () => clients.delete(incoming));
    turn += 1;
    const inTurn = targets
      .map((_, index) => targets[(turn + index) % targets.length])
      .filter((target) => target !== undefined);
    void firstThatAnswers(inTurn, keep).then((outgoing) => {
      if (outgoing === undefined || incoming.destroyed) {
        outgoing?.destroy();
        incoming.destroy();
        return;
      }
      incoming.once("close", () => outgoing.destroy());
      outgoing.once("close", () => incoming.destroy());
      incoming.pipe(outgoing).pipe(incoming);
    });
  });
  server.listen(port ?? (await freePort()), "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the proxy has no port");
  return {
    port: address.port,
    route(...next) {
      targets = next;
    },
    cutOff(isCutOff) {
      refuses = isCutOff;
      for (const [socket, clientPort] of clients) if (isCutOff?.(clientPort) === true) socket.destroy();
    },
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

async function firstThatAnswers(
  targets: readonly ProxyTarget[],
  keep: (socket: Socket) => void,
): Promise<Socket | undefined> {
  for (const { host = "127.0.0.1", port } of targets) {
    const socket = connect({ host, port });
    keep(socket);
    const answers = await new Promise<boolean>((resolve) => {
      socket.once("connect", () => resolve(true));
      socket.once("close", () => resolve(false));
    });
    if (answers) return socket;
  }
  return undefined;
}
