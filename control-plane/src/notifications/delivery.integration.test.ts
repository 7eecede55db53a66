import { createHmac } from "node:crypto";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { newId } from "@cloudpods/shared/ids";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startMailServer, type MailServer } from "../../../test/support/mail-server.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { until } from "../../../test/support/until.ts";
import { startWebhookReceiver, type WebhookReceiver } from "../../../test/support/webhook-receiver.ts";
import type { Database } from "../platform/database.ts";
import { masterKey } from "../platform/sealing.ts";
import { sql } from "../platform/sql.ts";
import { attemptsMax } from "./decide-attempt.ts";
import { deliverNotifications, type DeliveryDeps } from "./deliver-notifications.ts";
import { enqueueNotification } from "./enqueue-notification.ts";
import { openMailer, type Mailer } from "./send-email.ts";
import { setWebhook } from "./webhook-secret.ts";

const key = masterKey(Buffer.alloc(32, 3));
const log = pino({ level: "silent" });
let db: TestDatabase;
let mail: MailServer;
let receiver: WebhookReceiver;
let mailer: Mailer;
let tenantId: string;
let secret: string;

beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());
beforeEach(async () => {
  await db.system.execute(sql`DELETE FROM notifications`);
  [mail, receiver] = [await startMailServer(), await startWebhookReceiver()];
  mailer = openMailer({ smtpUrl: mail.url, from: "CloudPods <billing@cloudpods.test>" });
  tenantId = await makeTenant();
  secret =
    (await db.api.transaction((tx) => setWebhook(tx, key, tenantId, { url: receiver.url, newSecret: false }), {
      tenantId,
    })) ?? "";
});
afterEach(async () => {
  mailer.close();
  await Promise.all([mail.close(), receiver.close()]);
});

async function makeTenant(): Promise<string> {
  const id = newId();
  await db.system.execute(sql`INSERT INTO tenants (id, slug, name) VALUES (${id}, ${`t-${id}`}, 'Test')`);
  return id;
}

const deps = (changes: Partial<DeliveryDeps> = {}): DeliveryDeps => ({
  db: db.system,
  log,
  masterKey: key,
  mailer,
  webhooks: {
    allowPrivate: true,
    deadlineMs: 30_000,
    resolve: async () => await Promise.resolve(["127.0.0.1"]),
  },
  ...changes,
});
/** With no patience with receivers that never answer. */
const hasty = (): DeliveryDeps => ({ ...deps(), webhooks: { ...deps().webhooks, deadlineMs: 500 } });

const webhook = (url = receiver.url, dedupeKey = newId(), tenant = tenantId) =>
  db.system.transaction((tx) =>
    enqueueNotification(tx, {
      tenantId: tenant,
      dedupeKey,
      channel: "webhook",
      recipient: url,
      payload: { event: "budget.threshold_crossed", data: { threshold: 80, spend: "8.00" } },
    }),
  );
const email = (dedupeKey = newId()) =>
  db.system.transaction((tx) =>
    enqueueNotification(tx, {
      tenantId,
      dedupeKey,
      channel: "email",
      recipient: "ada@example.test",
      payload: { subject: "Budget at 80 %", text: "You have spent 8.00 of 10.00 USD." },
    }),
  );

async function only(): Promise<Record<string, unknown>> {
  const rows = await db.system.query(sql`
    SELECT attempts, sent_at IS NOT NULL AS sent, dead_at IS NOT NULL AS dead, last_error_code AS code FROM notifications`);
  expect(rows).toHaveLength(1);
  return rows[0] ?? {};
}
const makeDue = () => db.system.execute(sql`UPDATE notifications SET next_try_at = now() WHERE sent_at IS NULL`);

test("an e-mail arrives once, as a mail with subject, text, sender and a message id of its own", async () => {
  await email();
  expect(await deliverNotifications(deps())).toEqual({ sent: 1, failed: 0, dead: 0 });
  expect(await deliverNotifications(deps())).toEqual({ sent: 0, failed: 0, dead: 0 });
  expect(mail.arrived).toHaveLength(1);
  expect(mail.arrived[0]).toMatchObject({ from: "billing@cloudpods.test", to: ["ada@example.test"] });
  expect(mail.arrived[0]?.text).toMatch(/^Subject: Budget at 80 %\r$/m);
  expect(mail.arrived[0]?.text).toContain("You have spent 8.00 of 10.00 USD.");
  expect(mail.arrived[0]?.text).toMatch(/^Message-ID: <[0-9a-f-]{36}@cloudpods\.test>\r$/im);
});

test("a webhook arrives signed over time and body with the tenant's secret", async () => {
  await webhook();
  await deliverNotifications(deps());
  const [seen] = receiver.arrived;
  const [, seconds, mac] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(seen?.headers["cloudpods-signature"])) ?? [];
  expect(createHmac("sha256", secret).update(`${seconds}.${seen?.body}`).digest("hex")).toBe(mac);
  expect(Math.abs(Date.now() / 1_000 - Number(seconds))).toBeLessThan(10);
  expect(JSON.parse(seen?.body ?? "")).toMatchObject({
    tenantId,
    event: "budget.threshold_crossed",
    data: { threshold: 80, spend: "8.00" },
  });
  // Negative control: another secret or another time does not fit.
  expect(createHmac("sha256", "other").update(`${seconds}.${seen?.body}`).digest("hex")).not.toBe(mac);
  expect(
    createHmac("sha256", secret)
      .update(`${Number(seconds) + 1}.${seen?.body}`)
      .digest("hex"),
  ).not.toBe(mac);
});

test("the same occasion is told once to a recipient, and nothing of a transaction that is undone", async () => {
  expect(await webhook(receiver.url, "budget:2026-01:80")).toBe(true);
  expect(await webhook(receiver.url, "budget:2026-01:80")).toBe(false);
  await db.system
    .transaction(async (tx) => {
      const payload = { subject: "never", text: "never" };
      await enqueueNotification(tx, { tenantId, dedupeKey: "x", channel: "email", recipient: "a@b.test", payload });
      throw new Error("undone");
    })
    .catch(() => {});
  await deliverNotifications(deps());
  expect(receiver.arrived).toHaveLength(1);
  expect(mail.arrived).toHaveLength(0);
});

test("two replicas at once deliver each message once", async () => {
  await Promise.all(Array.from({ length: 30 }, () => webhook()));
  let sent = 0;
  // A pass takes on nothing new after five seconds.
  await until("all of them", async () => {
    const reports = await Promise.all([deps(), deps(), deps()].map(deliverNotifications));
    sent += reports.reduce((sum, report) => sum + report.sent, 0);
    return sent >= 30;
  });
  expect(sent).toBe(30);
  expect(new Set(receiver.arrived.map(({ body }) => JSON.parse(body).id)).size).toBe(30);
  expect(receiver.arrived).toHaveLength(30);
});

test("a message whose sender died is sent again after its lease", async () => {
  await webhook();
  await db.system.execute(sql`UPDATE notifications SET attempts = 1, next_try_at = now() + interval '1 minute'`);
  expect(await deliverNotifications(deps())).toMatchObject({ sent: 0 });
  await makeDue();
  expect(await deliverNotifications(deps())).toMatchObject({ sent: 1 });
});

test.each([
  ["an error", { status: 500 }, "WEBHOOK_STATUS"],
  ["a redirect, which is not followed", { status: 302, headers: { location: "/elsewhere" } }, "WEBHOOK_REDIRECTED"],
  ["silence", undefined, "WEBHOOK_TIMEOUT"],
])("%s is tried again later", async (_name, answer, code) => {
  receiver.answer(() => answer);
  await webhook();
  const before = new Date();
  const patience = answer === undefined ? hasty() : deps();
  expect(await deliverNotifications(patience)).toEqual({ sent: 0, failed: 1, dead: 0 });
  expect(await only()).toMatchObject({ attempts: 1, sent: false, dead: false, code });
  const [next] = await db.system.query<{ at: Date }>(sql`SELECT next_try_at AS at FROM notifications`);
  expect((next?.at.getTime() ?? 0) - before.getTime()).toBeGreaterThan(3_000);
  expect(receiver.arrived.map(({ path }) => path)).toEqual(["/hook"]);
  receiver.answer(() => ({ status: 200 }));
  await makeDue();
  expect(await deliverNotifications(deps())).toMatchObject({ sent: 1 });
  expect(await only()).toMatchObject({ attempts: 2, sent: true, code: null });
});

test("what never succeeds ends as a dead letter, and a receiver that is gone at once", async () => {
  receiver.answer(() => ({ status: 503 }));
  await webhook();
  for (let attempt = 1; attempt <= attemptsMax + 2; attempt++) {
    await deliverNotifications(deps());
    await makeDue();
  }
  expect(await only()).toMatchObject({ attempts: attemptsMax, dead: true, code: "WEBHOOK_STATUS" });
  expect(receiver.arrived).toHaveLength(attemptsMax);
  await db.system.execute(sql`DELETE FROM notifications`);
  receiver.answer(() => ({ status: 410 }));
  await webhook();
  await deliverNotifications(deps());
  expect(await only()).toMatchObject({ attempts: 1, dead: true, code: "WEBHOOK_GONE" });
});

test("an address that the mail server refuses for good is dead, a busy or absent server is not", async () => {
  mail.refuse(451);
  await email();
  await deliverNotifications(deps());
  expect(await only()).toMatchObject({ dead: false, code: "EMAIL_FAILED" });
  await mail.close();
  await makeDue();
  await deliverNotifications(deps());
  expect(await only()).toMatchObject({ attempts: 2, dead: false, code: "EMAIL_FAILED" });
  mail = await startMailServer();
  mail.refuse(550);
  mailer.close();
  mailer = openMailer({ smtpUrl: mail.url, from: "billing@cloudpods.test" });
  await makeDue();
  await deliverNotifications(deps());
  expect(await only()).toMatchObject({ attempts: 3, dead: true, code: "EMAIL_REFUSED" });
});

test("a mail server that talks without end is left after the deadline", async () => {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket.on("error", () => {}));
    socket.write("220 mail.test\r\n");
    const talk = setInterval(() => socket.write("250-and another thing\r\n"), 50);
    socket.on("close", () => clearInterval(talk));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // listening on TCP
  const hasty = openMailer({ smtpUrl: `smtp://127.0.0.1:${port}`, from: "billing@cloudpods.test" }, 300);
  try {
    await email();
    expect(await deliverNotifications(deps({ mailer: hasty }))).toEqual({ sent: 0, failed: 1, dead: 0 });
    expect(await only()).toMatchObject({ attempts: 1, dead: false, code: "EMAIL_TIMEOUT" });
  } finally {
    hasty.close();
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
});

describe("a sender that outlives its lease", () => {
  /** Sends, and is told that it was refused for good only when another replica has sent the message again. */
  async function outlive(database: Database): Promise<unknown> {
    const [asked, answered] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let sendings = 0;
    const slow: Mailer = {
      ...mailer,
      async send(...sending) {
        if (++sendings > 1) return await mailer.send(...sending);
        asked.resolve();
        await answered.promise;
        return { kind: "refused", code: "EMAIL_REFUSED", message: "too late" };
      },
    };
    await email();
    mail.refuse(451);
    const first = deliverNotifications(deps({ db: database, mailer: slow }));
    await asked.promise;
    await makeDue();
    // By this pass or by another lane of the one that waits.
    await deliverNotifications(deps());
    await expect.poll(only, { timeout: 30_000 }).toMatchObject({ attempts: 2, code: "EMAIL_FAILED" });
    answered.resolve();
    await first;
    return await only();
  }

  test("has no say any more", async () => {
    expect(await outlive(db.system)).toMatchObject({ attempts: 2, dead: false, code: "EMAIL_FAILED" });
  });

  test("negative control: without the number of its attempt it ends what another still tries", async () => {
    const unfenced: Database = {
      ...db.system,
      execute: ({ text, values }) =>
        db.system.execute({ text: text.replace(/AND attempts = (\$\d+)/, "AND $1 > 0"), values }),
    };
    expect(await outlive(unfenced)).toMatchObject({ attempts: 2, dead: true, code: "EMAIL_REFUSED" });
  });
});

test("without a mail server e-mails wait, and after three days say why they were not sent", async () => {
  await email();
  expect(await deliverNotifications(deps({ mailer: undefined }))).toEqual({ sent: 0, failed: 0, dead: 0 });
  expect(await only()).toMatchObject({ attempts: 0, dead: false });
  await db.system.execute(sql`UPDATE notifications SET queued_at = now() - interval '73 hours'`);
  expect(await deliverNotifications(deps({ mailer: undefined }))).toMatchObject({ dead: 1 });
  expect(await only()).toMatchObject({ attempts: 0, dead: true, code: "EMAIL_NOT_CONFIGURED" });
});

test("a receiver that never answers does not hold up other tenants", async () => {
  receiver.answer(({ path }) => (path === "/slow" ? undefined : { status: 204 }));
  const slow = receiver.url.replace("/hook", "/slow");
  for (let message = 0; message < 12; message++) await webhook(slow);
  const other = await makeTenant();
  await db.api.transaction((tx) => setWebhook(tx, key, other, { url: receiver.url, newSecret: false }), {
    tenantId: other,
  });
  await webhook(receiver.url, "late", other);
  const pass = deliverNotifications(hasty());
  await expect.poll(() => receiver.arrived.some(({ path }) => path === "/hook"), { timeout: 30_000 }).toBe(true);
  // Two of the slow ones at most are ahead of it.
  const before = receiver.arrived.findIndex(({ path }) => path === "/hook");
  expect(before).toBeLessThanOrEqual(2);
  await pass;
});

test.each(["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:a00:1]", "localhost"])(
  "nothing goes to %s, and it is a dead letter at once",
  async (host) => {
    await webhook(`https://${host}:${receiver.port}/hook`);
    const strict = {
      allowPrivate: false,
      deadlineMs: 30_000,
      resolve: async () => await Promise.resolve(["::1", "127.0.0.1"]),
    };
    await deliverNotifications(deps({ webhooks: strict }));
    expect(await only()).toMatchObject({ attempts: 1, dead: true, code: "WEBHOOK_TARGET_REFUSED" });
    expect(receiver.arrived).toHaveLength(0);
  },
);

test("a name that points elsewhere the second time is asked once: the address that was looked at is connected to", async () => {
  const answers = [["127.0.0.1"], ["10.255.255.1"]];
  let asked = 0;
  const resolve = async () => await Promise.resolve(answers[asked++] ?? []);
  await webhook(`http://rebind.example:${receiver.port}/hook`);
  await deliverNotifications(deps({ webhooks: { allowPrivate: true, deadlineMs: 30_000, resolve } }));
  expect(asked).toBe(1);
  expect(receiver.arrived[0]?.headers.host).toBe(`rebind.example:${receiver.port}`);
});

test("a tenant's secret is sealed and cannot be opened as another tenant's", async () => {
  const [row] = await db.system.query<{ sealed: string }>(
    sql`SELECT secret_sealed AS sealed FROM tenant_webhooks WHERE tenant_id = ${tenantId}`,
  );
  expect(row?.sealed).not.toContain(secret);
  const other = await makeTenant();
  await db.system.execute(
    sql`INSERT INTO tenant_webhooks (tenant_id, url, secret_sealed) VALUES (${other}, ${receiver.url}, ${row?.sealed})`,
  );
  await webhook(receiver.url, "stolen", other);
  await deliverNotifications(deps());
  expect(await only()).toMatchObject({ sent: false, code: "WEBHOOK_SECRET_UNREADABLE" });
  expect(receiver.arrived).toHaveLength(0);
});
