import { nodeRoles } from "@cloudpods/shared/node-roles";
import { z } from "@hono/zod-openapi";
import { noBody, timestamp, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toIdPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import type { Hints } from "../platform/hints.ts";
import { recordAudit } from "../security/audit.ts";
import { enrolNode } from "./enrol-node.ts";
import { createJoinToken, listJoinTokens, revokeJoinToken } from "./join-tokens.ts";
import type { IssuingDeps } from "./node-certificates.ts";
import { makeRenewalChallenge, renewNodeCertificate } from "./renew-certificate.ts";

const labels = z
  .record(z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9_./-]{0,62}$/), z.string().max(255))
  .openapi({ example: { rack: "a3" } });

/** Names that paths use themselves. */
const reservedNames = new Set(["enroll", "renew", "join-tokens", "unmanaged", "findings", "drains"]);

const nodeName = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/, "lower-case letters, digits, dots and dashes")
  .refine((name) => !reservedNames.has(name) && !z.uuid().safeParse(name).success, "this name cannot be used in paths")
  .openapi({ example: "pve-a" });

const joinToken = z.object({
  id: uuid,
  name: z.string(),
  role: z.string(),
  region: z.string(),
  labels,
  replacesNode: uuid.nullable(),
  createdBy: z.string().nullable(),
  createdAt: timestamp,
  expiresAt: timestamp,
  usedAt: timestamp.nullable(),
  revokedAt: timestamp.nullable(),
  nodeId: uuid.nullable().openapi({ description: "The node that joined with it." }),
});

const identity = z.object({
  nodeId: uuid,
  certificate: z.string().openapi({ description: "PEM" }),
  caBundle: z.string().openapi({ description: "PEM of every authority in force." }),
  vouchers: z.string().openapi({
    description: "PEM; authorities in certificates signed by those before them, for hosts that know only such a one.",
  }),
  gatewayAddress: z.string().openapi({ example: "cloudpods.example:7443" }),
  brokerUrl: z.string().openapi({ example: "mqtts://cloudpods.example:8883" }),
});

const pem = z.string().min(1).max(4_096);
const hex = z.string().regex(/^[0-9a-fA-F]{2,600}$/);
const operator = { platform: "OPERATOR" } as const;
const tags = ["nodes"];

/** Adds the routes by which hosts come into the fleet and stay in it. */
export function registerEnrolmentRoutes(routes: RouteTable, deps: IssuingDeps & { readonly hints: Hints }): void {
  route(routes, {
    method: "post",
    path: "/api/nodes/enroll",
    summary: "A host joins with a join token",
    tags,
    access: "public",
    request: {
      body: z.strictObject({
        tokenId: z.uuid(),
        csr: pem.openapi({ description: "PEM certificate request for a P-256 key." }),
        proof: hex.openapi({
          description: "Hex HMAC-SHA256 over the request's DER, keyed with SHA-256 of the token's secret.",
        }),
        machineId: hex,
        hostname: z.string().min(1).max(255),
        pveName: z.string().max(255),
      }),
      example: {
        tokenId: "019a0000-0000-7000-8000-000000000001",
        csr: "-----BEGIN CERTIFICATE REQUEST-----\nMIHI…\n-----END CERTIFICATE REQUEST-----\n",
        proof: "5f1d".repeat(16),
        machineId: "0a1b".repeat(16),
        hostname: "pve-a.example",
        pveName: "pve-a",
      },
    },
    responses: { 200: identity },
    handler: async ({ body }, { system, requestId }) => {
      const answer = await enrolNode(system, deps, body, requestId);
      // Whoever held the identity before is disconnected.
      deps.hints.send("node_sessions", answer.nodeId);
      return { status: 200, body: answer };
    },
  });
  route(routes, {
    method: "get",
    path: "/api/nodes/renew/challenge",
    summary: "A nonce for one renewal within 60 seconds",
    tags,
    access: "public",
    request: { query: z.object({ node: z.uuid().openapi({ description: "UUID of the host." }) }) },
    responses: { 200: z.object({ nonce: z.string() }) },
    handler: async ({ query }, { system }) => ({ status: 200, body: await makeRenewalChallenge(system, query.node) }),
  });
  route(routes, {
    method: "post",
    path: "/api/nodes/renew",
    summary: "A host renews its certificate, before or after it expired",
    tags,
    access: "public",
    request: {
      body: z.strictObject({
        nodeId: z.uuid(),
        nonce: hex,
        csr: pem,
        signature: hex.openapi({
          description:
            "Hex DER of ECDSA-SHA256 over nodeId, nonce and base64 of the request's DER, joined by newlines.",
        }),
      }),
      example: {
        nodeId: "019a0000-0000-7000-8000-000000000001",
        nonce: "9c2e".repeat(16),
        csr: "-----BEGIN CERTIFICATE REQUEST-----\nMIHI…\n-----END CERTIFICATE REQUEST-----\n",
        signature: "3045".repeat(18),
      },
    },
    responses: { 200: identity },
    handler: async ({ body }, { system, requestId }) => ({
      status: 200,
      body: await renewNodeCertificate(system, deps, body, requestId),
    }),
  });
  registerJoinTokenRoutes(routes, deps);
}

function registerJoinTokenRoutes(routes: RouteTable, deps: IssuingDeps): void {
  const madeToken = joinToken.extend({ token: z.string().openapi({ description: "Shown once." }) });
  route(routes, {
    method: "post",
    path: "/api/nodes/join-tokens",
    summary: "Make a token with which one host can join within 15 minutes",
    tags,
    access: operator,
    idempotent: { shownOnce: (body: { readonly id: string }) => body.id },
    request: {
      body: z.strictObject({
        name: nodeName,
        role: z.enum(nodeRoles).default("hypervisor"),
        region: z.string().regex(/^[a-z0-9-]{1,40}$/),
        labels: labels.default({}),
        replacesNode: z.uuid().optional().openapi({ description: "The node whose identity the host takes over." }),
      }),
      example: { name: "pve-a", region: "local" },
    },
    responses: { 201: madeToken },
    handler: async ({ body }, ctx) => {
      return await ctx.inSystem(async (tx) => {
        const { token, text } = await createJoinToken(
          tx,
          { ...body, createdBy: ctx.actor.id },
          deps.authorities.active,
        );
        const detail = { name: body.name, role: body.role, region: body.region, replacesNode: body.replacesNode };
        const { actor, requestId } = ctx;
        await recordAudit(tx, {
          actor,
          requestId,
          tenantId: undefined,
          action: "join-token.create",
          targetType: "join-token",
          targetId: token.id,
          detail,
        });
        return { status: 201 as const, body: { ...token, token: text } };
      });
    },
  });
  registerTokenUpkeep(routes);
}

function registerTokenUpkeep(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/nodes/join-tokens",
    summary: "Join tokens, newest first",
    tags,
    access: operator,
    request: { query: listQuery },
    responses: { 200: listOf(joinToken) },
    handler: async ({ query }, { system }) => {
      const rows = await listJoinTokens(system, {
        limit: query.limit + 1,
        beforeId: decodeCursor(query.cursor, 1)?.[0],
      });
      return {
        status: 200,
        body: toIdPage(rows, query.limit, (row) => row),
      };
    },
  });
  route(routes, {
    method: "delete",
    path: "/api/nodes/join-tokens/:id",
    summary: "Make a join token useless",
    tags,
    access: operator,
    responses: { 204: noBody },
    handler: async ({ params }, ctx) => {
      await ctx.inSystem(async (tx) => {
        await revokeJoinToken(tx, params.id);
        const { actor, requestId } = ctx;
        await recordAudit(tx, {
          actor,
          requestId,
          tenantId: undefined,
          action: "join-token.revoke",
          targetType: "join-token",
          targetId: params.id,
        });
      });
      return { status: 204 };
    },
  });
}
