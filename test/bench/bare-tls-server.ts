import { type AddressInfo } from "node:net";
import { createServer } from "node:tls";

/** What the bare server is started with; PEM. */
export interface BareTls {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

/** A process that holds connections with mutual TLS and does nothing with them; it answers with its port. */
process.once("message", ({ cert, key, ca }: BareTls) => {
  const server = createServer({ cert, key, ca, requestCert: true, minVersion: "TLSv1.3" }, (socket) => {
    socket.on("error", () => {});
    // Tells the client that its certificate was accepted.
    socket.write("1");
  });
  // A TLS server that listens on a port has an address with one.
  server.listen(0, "127.0.0.1", () => process.send?.((server.address() as AddressInfo).port));
});
process.on("disconnect", () => process.exit(0));
