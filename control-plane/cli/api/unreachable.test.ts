import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { unreachable } from "./unreachable.ts";

test("a server that answers in the clear where TLS was asked for is told as such, and is not tried again", async () => {
  const server = createServer((_, response) => response.end()).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  // It listens on a port, not on a path.
  const { port } = server.address() as AddressInfo;
  const url = new URL(`https://127.0.0.1:${port}/api`);
  const failure = unreachable(url, await fetch(url).catch((error: unknown) => error));
  server.close();
  expect(failure.message).toBe(`https://127.0.0.1:${port} answers without encryption; is it http://127.0.0.1:${port}?`);
  expect(failure.isPassing).toBe(false);
});

test("what others say is told in one line", () => {
  const said = Object.assign(new Error("405D:error:\n  in a file\n"), { code: "ERR_SOMETHING" });
  const failure = unreachable(new URL("https://pods.example/api"), new TypeError("fetch failed", { cause: said }));
  expect(failure.message).toBe("https://pods.example cannot be reached: 405D:error: in a file");
});
