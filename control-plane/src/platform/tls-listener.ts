import { createServer as createTcpServer, type AddressInfo, type Socket } from "node:net";
import { createServer as createTlsServer, type TLSSocket } from "node:tls";

/** A server certificate with its key, and the authorities whose clients are let in; all PEM. */
export interface ServerTls {
  readonly cert: string;
  readonly key: string;
  /** One PEM block for each authority that is not retired. */
  readonly ca: readonly string[];
}

/** What a listener for mutual TLS needs. */
export interface TlsListenerOptions {
  readonly tls: ServerTls;
  /** Address to listen on. */
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** The protocol that is agreed on in the handshake. */
  readonly alpnProtocol?: string;
  /** Takes over a connection whose client showed a certificate of ours. */
  readonly onConnection: (socket: TLSSocket) => void;
  /** Told of connections that came to nothing: a handshake that failed, or no turn for one in time. */
  readonly onRefused: (reason: "TLS" | "BUSY", error?: Error) => void;
  /** Asked before each handshake; false while what follows it is behind with its work. */
  readonly mayBegin?: () => boolean;
  readonly limits?: TlsListenerLimits;
}

/** Bounds of a listener. */
export interface TlsListenerLimits {
  /** Handshakes at a time. */
  readonly handshakesMax: number;
  /** Connections that may wait for their turn. */
  readonly waitingMax: number;
  /** How long; well below the time after which agents give up (10 s for the broker, 20 s for the gateway). */
  readonly waitMs: number;
  /** How long a handshake counts: who dawdles keeps nobody from his turn. */
  readonly turnMs: number;
  /** How long it counts while its client has said nothing; shorter, for those who only open connections. */
  readonly silentMs: number;
}

/** A running listener. */
export interface TlsListener {
  readonly port: number;
  /** Uses a new certificate or new authorities for connections made from now on. */
  updateTls(tls: ServerTls): void;
  /** Stops listening and closes what is not handed over yet; what was handed over goes on. */
  close(): void;
}

const defaultLimits: TlsListenerLimits = {
  handshakesMax: 64,
  waitingMax: 1_000,
  waitMs: 4_000,
  turnMs: 1_000,
  silentMs: 200,
};
/** Between two looks at those who wait while nothing else happens. */
const lookMs = 50;
/** For those who wait in the kernel until they are accepted: a whole fleet may dial within a second. */
const backlog = 4_096;
const handshakeTimeoutMs = 10_000;

/**
 * Listens for clients with certificates of our authorities and lets few handshakes run at a time. A fleet that comes back
 * together could otherwise have all its handshakes under way at once, each too slow for the client's patience, and all of
 * the work for nothing, again and again. Who waits costs a socket; who has waited too long is closed and dials again after
 * its back-off.
 *
 * @throws what the socket says, e.g. EADDRINUSE
 */
export async function listenTls(options: TlsListenerOptions): Promise<TlsListener> {
  const turns = createTurns(options, (socket) => tlsServer.emit("connection", socket));
  const tlsServer = createTlsServer(
    {
      ...contextOf(options.tls),
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: "TLSv1.3",
      handshakeTimeout: handshakeTimeoutMs,
      ...(options.alpnProtocol === undefined ? {} : { ALPNProtocols: [options.alpnProtocol] }),
    },
    (socket) => {
      turns.leave(socket);
      options.onConnection(socket);
    },
  );
  tlsServer.on("tlsClientError", (error) => options.onRefused("TLS", error));
  // Nothing is read while a connection waits: its first bytes are the handshake's.
  const tcpServer = createTcpServer({ pauseOnConnect: true }, (socket) => turns.enter(socket));
  await new Promise<void>((resolve, reject) => {
    tcpServer.once("error", reject);
    tcpServer.listen({ port: options.port, host: options.host, backlog }, resolve);
  });
  // A server that listens on a port has an address with one.
  const { port } = tcpServer.address() as AddressInfo;
  return {
    port,
    updateTls: (tls) => tlsServer.setSecureContext(contextOf(tls)),
    close() {
      // Its own end would come with that of the last connection, which is for others to end.
      tcpServer.close();
      turns.close();
    },
  };
}

function contextOf({ cert, key, ca }: ServerTls) {
  return { cert, key, ca: [...ca] };
}

/** Gives connections their turns in the order in which they came. */
function createTurns(options: TlsListenerOptions, begin: (socket: Socket) => void) {
  const { handshakesMax, waitingMax, waitMs, turnMs, silentMs } = options.limits ?? defaultLimits;
  const waiting = new Map<Socket, number>();
  /** By client: the socket of TLS does not tell the one that it reads from. */
  const turns = new Map<string, { readonly socket: Socket; readonly end: () => void }>();
  let looking: NodeJS.Timeout | undefined;

  const take = (socket: Socket): void => {
    const client = clientOf(socket);
    const end = (): void => {
      clearTimeout(timer);
      if (turns.delete(client)) look();
    };
    let timer = setTimeout(() => {
      if (socket.bytesRead === 0) return end();
      timer = setTimeout(end, turnMs - silentMs);
    }, silentMs);
    turns.set(client, { socket, end });
    socket.once("close", end);
    begin(socket);
  };
  const refuse = (socket: Socket): void => {
    waiting.delete(socket);
    socket.destroy();
    options.onRefused("BUSY");
  };
  const look = (): void => {
    clearTimeout(looking);
    const nowMs = performance.now();
    for (const [socket, sinceMs] of waiting) {
      if (nowMs - sinceMs > waitMs) refuse(socket);
      else if (turns.size < handshakesMax && options.mayBegin?.() !== false) {
        waiting.delete(socket);
        take(socket);
      } else break;
    }
    looking = waiting.size > 0 ? setTimeout(look, lookMs) : undefined;
  };
  return {
    enter(socket: Socket): void {
      // A client that is gone before its turn is noticed when its handshake fails.
      socket.on("error", () => {});
      if (waiting.size >= waitingMax) return refuse(socket);
      waiting.set(socket, performance.now());
      look();
    },
    leave: (socket: Socket): void => turns.get(clientOf(socket))?.end(),
    close(): void {
      for (const socket of waiting.keys()) socket.destroy();
      waiting.clear();
      for (const { socket } of turns.values()) socket.destroy();
      clearTimeout(looking);
    },
  };
}

function clientOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
