import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExternalBrokerTls } from "./broker-identities.ts";
import { freePort } from "./free-port.ts";
import { until } from "./until.ts";

const deployed = join(import.meta.dirname, "../../deploy/mosquitto");

/** A Mosquitto of its own, running until `stop`. */
export interface Mosquitto {
  readonly port: number;
  /** Ends it as a crash does; what it had queued is gone. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts Mosquitto as deploy/mosquitto says, with its files elsewhere, by default on a free port. */
export async function startMosquitto(tls: ExternalBrokerTls, port?: number): Promise<Mosquitto> {
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-mosquitto-"));
  const listenPort = port ?? (await freePort());
  const file = async (name: string, content: string) => {
    await writeFile(join(directory, name), content, { mode: 0o600 });
    return join(directory, name);
  };
  await file("ca.pem", tls.ca.join(""));
  await file("cert.pem", tls.cert);
  await file("key.pem", tls.key);
  await file("crl.pem", tls.crl);
  await file("acl", await readFile(join(deployed, "acl"), "utf8"));
  const configuration = (await readFile(join(deployed, "cloudpods.conf"), "utf8"))
    .replace("listener 8883", `listener ${listenPort} 127.0.0.1`)
    .replaceAll("/etc/mosquitto/cloudpods", directory)
    // The files above are readable by their owner alone.
    .concat(process.getuid?.() === 0 ? "user root\n" : "");
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
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    child.kill(signal);
    await ended;
    await rm(directory, { recursive: true, force: true });
  };
  return { port: listenPort, kill: () => end("SIGKILL"), stop: () => end("SIGTERM") };
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
