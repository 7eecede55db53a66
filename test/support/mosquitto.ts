import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BrokerSideTls } from "./broker-identities.ts";
import { until } from "./until.ts";

/** A Mosquitto of its own, running until `stop`. */
export interface Mosquitto {
  readonly port: number;
  stop(): Promise<void>;
}

/** Starts Mosquitto with TLS, client certificates and the same access rules as the embedded broker; `port` 0 takes a free one. */
export async function startMosquitto(tls: BrokerSideTls, replicaIds: readonly string[], port = 0): Promise<Mosquitto> {
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-mosquitto-"));
  const listenPort = port === 0 ? await freePort() : port;
  const file = async (name: string, content: string) => {
    await writeFile(join(directory, name), content, { mode: 0o600 });
    return join(directory, name);
  };
  const node = "cloudpods/v1/nodes/%u";
  const configuration = [
    `listener ${listenPort} 127.0.0.1`,
    `cafile ${await file("ca.pem", tls.ca.join(""))}`,
    `certfile ${await file("cert.pem", tls.cert)}`,
    `keyfile ${await file("key.pem", tls.key)}`,
    "require_certificate true",
    "use_identity_as_username true",
    `acl_file ${await file(
      "acl",
      [
        ...["samples", "heartbeat", "status"].map((channel) => `pattern write ${node}/${channel}`),
        `pattern read ${node}/acks`,
        ...replicaIds.flatMap((id) => [`user control-plane:${id}`, "topic readwrite cloudpods/v1/#"]),
      ].join("\n"),
    )}`,
    "message_size_limit 262144",
    "persistence false",
    // The files above are readable by their owner alone.
    ...(process.getuid?.() === 0 ? ["user root"] : []),
  ].join("\n");
  const child = spawn("mosquitto", ["-c", await file("mosquitto.conf", configuration)], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin` },
  });
  let said = "";
  child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()));
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  await until("mosquitto", () => {
    if (child.exitCode !== null) throw new Error(`mosquitto ended: ${said}`);
    return accepts(listenPort);
  });
  return {
    port: listenPort,
    async stop() {
      child.kill("SIGTERM");
      await ended;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no free port");
  return address.port;
}
