import { expect, test } from "vitest";
import { ConfigError, readConfig } from "./config.ts";

test("nothing set means everything embedded in one process", () => {
  const config = readConfig({});
  expect(config.databaseUrl).toBeUndefined();
  expect([...config.roles].sort()).toEqual(["api", "broker", "gateway", "ingest", "worker"]);
  expect(config.sampleIntervalMs).toBe(60_000);
});

test("every fault is listed at once by the name of its variable", () => {
  const read = () =>
    readConfig({
      CLOUDPODS_HTTP_PORT: "99999",
      CLOUDPODS_ROLES: "api,cook",
      CLOUDPODS_DATABASE_URL: "mysql://x",
      CLOUDPODS_MASTER_KEY: "short",
      CLOUDPODS_MASTER_KEY_FILE: "/nowhere/at/all",
      CLOUDPODS_HTTP_PROT: "1",
      CLOUDPODS_TRUSTED_PROXIES: "10.0.0.0/8,everyone",
    });
  expect(read).toThrow(ConfigError);
  try {
    read();
  } catch (error) {
    const text = error instanceof ConfigError ? error.message : "";
    for (const name of [
      "HTTP_PORT",
      "ROLES",
      "DATABASE_URL",
      "MASTER_KEY",
      "MASTER_KEY_FILE",
      "HTTP_PROT",
      "TRUSTED_PROXIES",
    ]) {
      expect(text).toContain(`CLOUDPODS_${name}`);
    }
    expect(text).not.toContain("short");
  }
});

test("mail needs a server and a sender", () => {
  const server = { CLOUDPODS_SMTP_URL: "smtp://mail.example.com:587" };
  expect(readConfig({}).mail).toBeUndefined();
  expect(readConfig({}).webhookAllowPrivate).toBe(false);
  expect(readConfig({ ...server, CLOUDPODS_MAIL_FROM: "CloudPods <no-reply@example.com>" }).mail).toEqual({
    smtpUrl: "smtp://mail.example.com:587",
    from: "CloudPods <no-reply@example.com>",
  });
  expect(() => readConfig(server)).toThrow("CLOUDPODS_MAIL_FROM");
  expect(() => readConfig({ ...server, CLOUDPODS_MAIL_FROM: "nobody" })).toThrow("CLOUDPODS_MAIL_FROM");
  expect(() => readConfig({ CLOUDPODS_SMTP_URL: "http://mail.example.com" })).toThrow("CLOUDPODS_SMTP_URL");
});
