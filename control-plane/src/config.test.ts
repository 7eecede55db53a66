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

test("what other variables make necessary is listed with all other faults", () => {
  const read = () =>
    readConfig({
      CLOUDPODS_HTTP_PORT: "99999",
      CLOUDPODS_DATABASE_URL: "postgres://db.example.com/cloudpods",
      CLOUDPODS_SMTP_URL: "smtp://mail.example.com:587",
    });
  for (const name of ["HTTP_PORT", "MASTER_KEY", "MAIL_FROM"]) expect(read).toThrow(`CLOUDPODS_${name}`);
});

test("gateway and ingest need a broker that can be there", () => {
  const shared = {
    CLOUDPODS_DATABASE_URL: "postgres://db.example.com/cloudpods",
    CLOUDPODS_MASTER_KEY: "0".repeat(64),
  };
  for (const role of ["gateway", "ingest"]) {
    const alone = { CLOUDPODS_ROLES: `api,${role}` };
    expect(() => readConfig(alone)).toThrow("CLOUDPODS_MQTT_URL: required");
    expect(readConfig({ ...alone, CLOUDPODS_MQTT_URL: "mqtts://broker.example.com:8883" }).roles).toContain(role);
    expect(readConfig({ ...alone, ...shared }).mqttUrl).toBeUndefined();
    expect(readConfig({ CLOUDPODS_ROLES: `broker,${role}` }).mqttUrl).toBeUndefined();
  }
  expect(readConfig({ CLOUDPODS_ROLES: "api,worker" }).mqttUrl).toBeUndefined();
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
