import { z } from "@hono/zod-openapi";
import { timestamp } from "../http/fields.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { checkVersion, etagOf } from "../http/version-check.ts";
import type { MasterKey } from "../platform/sealing.ts";
import { recordAudit } from "../security/audit.ts";
import { readWebhook, setWebhook } from "./webhook-secret.ts";
import { requireWebhookUrl, type WebhookRules } from "./webhook-target.ts";

/** What these routes need besides their contexts. */
export interface NotificationRouteDeps {
  readonly masterKey: MasterKey;
  readonly webhookRules: WebhookRules;
}

const webhookView = z
  .object({
    url: z.string().nullable(),
    secretMadeAt: timestamp.nullable(),
    version: z.number().int(),
    secret: z.string().optional().openapi({
      description: "Shown once, when it was made just now. Key of the HMAC-SHA256 in cloudpods-signature.",
    }),
  })
  .openapi("Webhook");

const webhookWish = z.strictObject({
  url: z.string().nullable().openapi({ description: "https; null: no webhooks." }),
  newSecret: z.boolean().default(false).openapi({ description: "Replace the secret; the old one ends at once." }),
});

/** Webhooks of a tenant. */
export function registerNotificationRoutes(
  routes: RouteTable,
  { masterKey, webhookRules }: NotificationRouteDeps,
): void {
  route(routes, {
    method: "get",
    path: "/api/tenants/:tenant/webhooks",
    summary: "Where a tenant's webhooks go",
    tags: ["tenants"],
    access: { scope: "ADMIN" },
    responses: { 200: webhookView },
    async handler(_request, ctx) {
      const settings = await ctx.inTenant((tx) => readWebhook(tx, ctx.tenantId));
      return { status: 200, headers: { etag: etagOf(settings.version) }, body: settings };
    },
  });
  route(routes, {
    method: "put",
    path: "/api/tenants/:tenant/webhooks",
    summary: "Set where a tenant's webhooks go; the first time a secret is made and shown",
    tags: ["tenants"],
    access: { scope: "ADMIN" },
    checksVersion: true,
    request: { body: webhookWish, example: { url: "https://hooks.example.com/cloudpods" } },
    responses: { 200: webhookView },
    async handler({ body, ifMatch }, ctx) {
      requireWebhookUrl(body.url, "/url", webhookRules);
      const answer = await ctx.inTenant(async (tx) => {
        checkVersion(ifMatch, (await readWebhook(tx, ctx.tenantId, true)).version);
        const secret = await setWebhook(tx, masterKey, ctx.tenantId, body);
        await recordAudit(tx, {
          actor: ctx.actor,
          requestId: ctx.requestId,
          tenantId: ctx.tenantId,
          action: "webhook.set",
          targetType: "tenant",
          targetId: ctx.tenantId,
          // The rest of the URL may hold a key of the receiver's.
          detail: { host: body.url === null ? null : new URL(body.url).host, newSecret: secret !== undefined },
        });
        return { ...(await readWebhook(tx, ctx.tenantId)), secret };
      });
      return { status: 200, headers: { etag: etagOf(answer.version) }, body: answer };
    },
  });
}
