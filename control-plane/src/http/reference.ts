import { OpenAPIHono, z } from "@hono/zod-openapi";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { App } from "./trail.ts";
import { parameterNames, parameterPattern, type Route, type RouteTable } from "./route-table.ts";
import { HttpRefusal } from "./problem.ts";
import { describeParameters, headersOf, refusalTexts, statusText, tagTexts } from "./reference-texts.ts";
import { sessionCookie } from "./session-cookie.ts";

type RouteRegistration = Parameters<OpenAPIHono["openAPIRegistry"]["registerPath"]>[0];

const problemSchema = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    instance: z.string(),
    error: z.string().openapi({ description: "Stable code.", example: "QUOTA_EXCEEDED" }),
    message: z.string(),
    details: z.record(z.string(), z.unknown()).optional(),
    errors: z.array(z.object({ pointer: z.string(), detail: z.string() })).optional(),
    requestId: z.string(),
  })
  .openapi("Problem");

const assets: Readonly<Record<string, string>> = {
  "swagger-ui.css": "text/css",
  "swagger-ui-bundle.js": "text/javascript",
  "favicon-32x32.png": "image/png",
};

// The page's own script is a file and not inline, so that scripts need no exception. Swagger UI sets style
// attributes, and draws its icons from data: addresses.
const pagePolicy =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>CloudPods API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="reference"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
`;

const startScript = `SwaggerUIBundle({ url: "/openapi.json", dom_id: "#reference", deepLinking: true, validatorUrl: null });\n`;

/** Adds `/openapi.json` and a readable page of it at `/docs`, from files of our own: no other host is asked. */
export function addReference(app: App, routes: RouteTable, version: string): void {
  let document: string | undefined;
  // Made when somebody asks for it: it is a quarter of a start, and most replicas are never asked.
  const readDocument = (): string => (document ??= JSON.stringify(openApiDocument(routes.list(), version)));
  const directory = dirname(createRequire(import.meta.url).resolve("swagger-ui-dist/package.json"));
  const headers = { "content-security-policy": pagePolicy };
  app.get("/openapi.json", (c) => c.body(readDocument(), 200, { "content-type": "application/json" }));
  app.get("/docs", (c) => c.html(page, 200, headers));
  app.get("/docs/start.js", (c) => c.body(startScript, 200, { "content-type": "text/javascript" }));
  app.get("/docs/:file", async (c) => {
    const file = c.req.param("file");
    const type = assets[file];
    if (type === undefined) throw new HttpRefusal(404, "PATH_UNKNOWN", "There is nothing at this path.");
    return c.body(await readFile(join(directory, file)), 200, {
      "content-type": type,
      "cache-control": "public, max-age=86400",
    });
  });
}

/** The OpenAPI 3.1 document of the routes. */
function openApiDocument(routes: readonly Route[], version: string): object {
  const collector = new OpenAPIHono();
  const registry = collector.openAPIRegistry;
  registry.registerComponent("securitySchemes", "bearer", {
    type: "http",
    scheme: "bearer",
    description: "A session or an API token.",
  });
  registry.registerComponent("securitySchemes", "cookie", { type: "apiKey", in: "cookie", name: sessionCookie });
  registry.register("Problem", problemSchema);
  for (const route of routes) registry.registerPath(describe(route));
  const document = collector.getOpenAPI31Document({
    openapi: "3.1.0",
    info: {
      title: "CloudPods",
      version,
      description: "Orders, operates and meters small containers on Proxmox VE hosts.",
      license: { name: "Apache-2.0" },
    },
    servers: [{ url: "/" }],
    tags: Object.entries(tagTexts).map(([name, description]) => ({ name, description })),
  });
  describeParameters(document.paths ?? {});
  return document;
}

function describe(route: Route): RouteRegistration {
  const { request, access } = route;
  const type = route.mediaType ?? "application/json";
  const responses = Object.entries(route.responses).map(([status, schema]) => {
    const hasBody = !schema.safeParse(undefined).success;
    return [
      status,
      { description: statusText(route, status), ...(hasBody ? { content: { [type]: { schema } } } : {}) },
    ] as const;
  });
  return {
    method: route.method,
    path: route.path.replaceAll(/:([^/]+)/g, "{$1}"),
    operationId: operationIdOf(route),
    summary: route.summary,
    description: describeAccess(route),
    tags: [...route.tags],
    security: access === "public" ? [] : [{ bearer: [] }, { cookie: [] }],
    request: {
      params: z.object(Object.fromEntries(parameterNames(route.path).map((name) => [name, parameterSchema(name)]))),
      ...(request?.query === undefined ? {} : { query: request.query }),
      ...headersOf(route),
      ...(request?.body === undefined
        ? {}
        : {
            body: {
              required: !request.body.safeParse(undefined).success,
              content: { "application/json": { schema: request.body, example: request.example } },
            },
          }),
    },
    responses: {
      ...Object.fromEntries(responses),
      ...Object.fromEntries(
        Object.entries(refusalTexts(route)).map(([status, text]) => [status, refusal(text)] as const),
      ),
      default: refusal("Refused; `error` names why."),
    },
  };
}

function refusal(description: string) {
  return { description, content: { "application/problem+json": { schema: problemSchema } } };
}

function parameterSchema(name: string): z.ZodType {
  const pattern = parameterPattern(name);
  return pattern === undefined ? z.string() : z.string().openapi({ pattern: `^(?:${pattern})$` });
}

function operationIdOf(route: Route): string {
  const words = route.path
    .replace(/^\/api\//, "")
    .replaceAll(":", "by-")
    .split(/[^A-Za-z0-9]+/);
  return [route.method, ...words.map((word) => word.charAt(0).toUpperCase() + word.slice(1))].join("");
}

function describeAccess({ access }: Route): string {
  if (access === "public") return "Public.";
  if ("session" in access) return "Needs a signed-in session.";
  if ("platform" in access) return `Needs the platform role ${access.platform}.`;
  return `Needs the scope ${access.scope}${access.credential === "session" ? " and a signed-in session" : ""}.`;
}
