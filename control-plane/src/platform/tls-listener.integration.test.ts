import { connect as connectTcp } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { expect, onTestFinished, test } from "vitest";
import { newId } from "@cloudpods/shared/ids";
import { brokerTls, hostTls } from "../../../test/support/broker-identities.ts";
import { makeTestAuthority } from "../../../test/support/test-authority.ts";
import { until } from "../../../test/support/until.ts";
import { listenTls, type TlsListenerOptions } from "./tls-listener.ts";

const patient = { handshakesMax: 1, waitingMax: 100, waitMs: 60_000, turnMs: 60_000, silentMs: 60_000 };
/** Of a handshake's record of 512 bytes, of which the rest never comes. */
const beginning = Buffer.of(22, 3, 1, 2, 0, 1);

/** A listener, and what became of those who dialled. */
async function listener(changes: Partial<TlsListenerOptions>) {
  const authority = await makeTestAuthority();
  const refused: string[] = [];
  const taken: TLSSocket[] = [];
  const running = await listenTls({
    tls: await brokerTls(authority),
    host: "127.0.0.1",
    port: 0,
    onConnection: (socket) => void taken.push(socket.on("error", () => {})),
    onRefused: (reason) => void refused.push(reason),
    ...changes,
  });
  const identity = await hostTls(authority, newId());
  const dialled: { destroy(): unknown }[] = [];
  onTestFinished(() => {
    running.close();
    for (const socket of [...dialled, ...taken]) socket.destroy();
  });
  /** Dials and says nothing, so that its handshake never ends. */
  const dialMute = () => {
    const socket = connectTcp({ host: "127.0.0.1", port: running.port }).on("error", () => {});
    dialled.push(socket);
    return socket;
  };
  /** Dials as a host does. */
  const dial = () => {
    const socket = connectTls({
      ...identity,
      ca: [...identity.ca],
      host: "127.0.0.1",
      port: running.port,
      servername: "localhost",
    });
    dialled.push(socket);
    return socket.on("error", () => {});
  };
  return { dial, dialMute, refused, taken, running };
}

test("a client has its turn as soon as those before it are through", async () => {
  const { dial, taken } = await listener({ limits: patient });
  for (let index = 0; index < 20; index++) dial();
  await until("all of them", () => taken.length === 20);
});

test("who says nothing, or too little, keeps nobody from his turn for long", async () => {
  const { dial, dialMute, taken } = await listener({ limits: { ...patient, turnMs: 100, silentMs: 50 } });
  dialMute();
  dialMute().write(beginning);
  dial();
  await until("the one that speaks", () => taken.length === 1);
});

test.each([
  ["says nothing", { silentMs: 60_000, waitMs: 200 }, Buffer.alloc(0)],
  ["says too little", { silentMs: 1_000, waitMs: 1_500 }, beginning],
])("negative control: with turns that last, one who %s is waited for in vain", async (_, changes, words) => {
  const { dial, dialMute, refused, taken } = await listener({ limits: { ...patient, ...changes } });
  const mute = dialMute();
  mute.write(words);
  await until("it has its turn", () => !mute.connecting);
  dial();
  await until("the next one is sent away", () => refused.length === 1);
  expect(taken).toEqual([]);
});

test("who waits too long, or finds too many waiting, is sent away without a handshake", async () => {
  const { dial, dialMute, refused, taken } = await listener({ limits: { ...patient, waitingMax: 1, waitMs: 100 } });
  dialMute();
  const [waiting, surplus] = [dial(), dial()];
  await until("both are gone", () => waiting.destroyed && surplus.destroyed);
  expect(refused).toEqual(["BUSY", "BUSY"]);
  expect(taken).toEqual([]);
});

test("no handshake begins while what follows is behind", async () => {
  let isReady = false;
  let asked = 0;
  const { dial, taken } = await listener({
    limits: patient,
    mayBegin() {
      asked++;
      return isReady;
    },
  });
  dial();
  await until("it is asked again and again", () => asked > 3);
  expect(taken).toEqual([]);
  isReady = true;
  await until("the handshake", () => taken.length === 1);
});

test("a client that left while it waited costs the others nothing", async () => {
  const { dial, dialMute, refused, taken } = await listener({ limits: patient });
  const [mute, gone] = [dialMute(), dial()];
  await until("it waits", () => !mute.connecting && !gone.connecting);
  gone.destroy();
  dial();
  mute.destroy();
  await until("the one that stayed", () => taken.length === 1);
  expect(refused).not.toContain("BUSY");
});

test("who waits or is in his handshake is closed with the listener, who is through is not", async () => {
  const { dial, dialMute, running, taken } = await listener({ limits: patient });
  const through = dial();
  await until("one is through", () => taken.length === 1);
  const [mute, waiting] = [dialMute(), dial()];
  await until("both have dialled", () => !mute.connecting && !waiting.connecting);
  running.close();
  await until("both are closed", () => mute.destroyed && waiting.destroyed);
  expect(through.destroyed).toBe(false);
});
