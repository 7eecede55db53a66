import { syncBuiltinESMExports } from "node:module";
import { Socket } from "node:net";
import tls from "node:tls";

/** Attempts to connect that are under way in this process at a time. */
const underWayMax = 16;
/** How long an attempt counts at most: who gave up leaves a socket whose end nobody hears. */
const attemptMs = 2_000;
/** How long an attempt may wait for its turn; what is left of its owner's patience (10 s, 20 s) is enough for it then. */
const waitMs = 5_000;
const sweepMs = 250;

/** An attempt that waits. */
interface WaitingDial {
  readonly socket: Socket;
  readonly sinceMs: number;
  readonly begin: () => void;
}

/**
 * Gives the sockets of this process their turns to connect and counts the attempts. In life every agent has a processor;
 * here a thousand share one, and their handshakes, all at once, would each be slower than the agents' patience, which
 * measures nothing of the control plane. The newest has the next turn, because its owner waits longest for it from now on;
 * who has waited too long fails, as if the network had refused it, and its owner backs off.
 *
 * @returns the attempts by second since 1970, whatever becomes of them
 */
export function gateDials(): Map<number, number> {
  const dials = new Map<number, number>();
  const waiting: WaitingDial[] = [];
  const ends = new WeakMap<Socket, () => void>();
  let underWay = 0;

  const next = (): void => {
    while (underWay < underWayMax) {
      const newest = waiting.pop();
      if (newest === undefined) return;
      if (!newest.socket.destroyed) newest.begin();
    }
  };
  const count = (socket: Socket): void => {
    underWay++;
    let isOver = false;
    const end = (): void => {
      if (isOver) return;
      isOver = true;
      underWay--;
      next();
    };
    ends.set(socket, end);
    socket.once("secureConnect", end).once("close", end);
    setTimeout(end, attemptMs);
  };
  setInterval(() => {
    const oldestMs = performance.now() - waitMs;
    const stay = waiting.findIndex(({ sinceMs }) => sinceMs >= oldestMs);
    for (const { socket } of waiting.splice(0, stay === -1 ? waiting.length : stay)) {
      socket.destroy(new Error("there was no turn for this attempt"));
    }
  }, sweepMs).unref();

  // Under both TLS and plain sockets, so that nothing that dials is missed.
  Socket.prototype.connect = new Proxy(Socket.prototype.connect, {
    apply(connect, socket: Socket, argv) {
      const second = Math.floor(Date.now() / 1_000);
      dials.set(second, (dials.get(second) ?? 0) + 1);
      // As the real one does at once: what is written now goes out when it is connected.
      Object.assign(socket, { connecting: true });
      const begin = (): void => {
        count(socket);
        Reflect.apply(connect, socket, argv);
      };
      waiting.push({ socket, sinceMs: performance.now(), begin });
      next();
      return socket;
    },
  });
  // gRPC connects first and puts TLS on it then.
  tls.connect = new Proxy(tls.connect, {
    apply(connect, self, argv: [tls.ConnectionOptions]) {
      const secured = Reflect.apply(connect, self, argv);
      const { socket } = argv[0];
      if (socket instanceof Socket) secured.once("secureConnect", () => ends.get(socket)?.());
      return secured;
    },
  });
  syncBuiltinESMExports();
  return dials;
}
