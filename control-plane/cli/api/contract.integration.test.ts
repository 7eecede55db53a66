import { afterAll, expect, test } from "vitest";
import { z } from "zod";
import { createTestDatabase } from "../../../test/support/postgres.ts";
import { buildWholeTestApp } from "../../../test/support/whole-app.ts";
import { type Endpoint, endpoints } from "./endpoints.ts";

/** As much of JSON Schema as the API's document uses. */
interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly additionalProperties?: Schema | boolean;
}

interface Operation {
  readonly parameters?: readonly { readonly name: string; readonly in: string }[];
  readonly responses: Readonly<
    Record<string, { readonly content?: Readonly<Record<string, { readonly schema: Schema }>> }>
  >;
}

// Before the tests are collected, so that there is one for each endpoint.
const db = await createTestDatabase();
const whole = await buildWholeTestApp(db);
const document: {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
} = JSON.parse(await (await whole.app.request("/openapi.json")).text());
afterAll(async () => {
  await whole.close();
  await db.close();
});

/** What a schema can be: its alternatives, without references and without null. */
function alternatives(schema: Schema): { readonly all: readonly Schema[]; readonly nullable: boolean } {
  if (schema.$ref !== undefined)
    return alternatives(document.components.schemas[schema.$ref.split("/").at(-1) ?? ""] ?? {});
  const parts = schema.anyOf ?? schema.oneOf;
  if (parts !== undefined) {
    const each = parts.map(alternatives);
    return { all: each.flatMap(({ all }) => all), nullable: each.some(({ nullable }) => nullable) };
  }
  if (schema.allOf !== undefined) {
    const merged = schema.allOf.flatMap((part) => alternatives(part).all);
    const properties = Object.assign({}, ...merged.map((part) => part.properties ?? {}));
    return {
      all: [{ type: "object", properties, required: merged.flatMap((part) => part.required ?? []) }],
      nullable: false,
    };
  }
  const types = [schema.type ?? []].flat();
  const others = types.filter((type) => type !== "null");
  return {
    all:
      types.length > 0 && others.length === 0
        ? []
        : [{ ...schema, type: others[0] === "integer" ? "number" : (others[0] ?? "") }],
    nullable: types.includes("null"),
  };
}

/** What commands read that the document does not promise. */
function broken(read: Schema, promised: Schema, path: string): string[] {
  const reads = alternatives(read);
  const promises = alternatives(promised);
  if (promises.nullable && !reads.nullable && reads.all.some(({ type }) => type !== "")) return [`${path} may be null`];
  return promises.all.flatMap((answer) => {
    const faults = reads.all.map((one) => brokenBy(one, answer, path));
    // One of the alternatives must do.
    return faults.some((list) => list.length === 0) ? [] : (faults[0] ?? [`${path} is not read`]);
  });
}

function brokenBy(read: Schema, answer: Schema, path: string): string[] {
  if (read.type === "" && read.const === undefined) return []; // unknown: anything will do
  const told = answer.type === "" ? typeof (answer.const ?? answer.enum?.[0]) : answer.type;
  const wanted = read.type === "" ? typeof read.const : read.type;
  if (told !== wanted) return [`${path} is ${String(told)}, read as ${String(wanted)}`];
  const constant = answer.const ?? (answer.enum?.length === 1 ? answer.enum[0] : undefined);
  if (read.const !== undefined && read.const !== constant) return [`${path} is not ${JSON.stringify(read.const)}`];
  if (read.items !== undefined) return broken(read.items, answer.items ?? {}, `${path}[]`);
  if (typeof read.additionalProperties === "object" && typeof answer.additionalProperties === "object")
    return broken(read.additionalProperties, answer.additionalProperties, `${path}{}`);
  return Object.entries(read.properties ?? {}).flatMap(([name, schema]) => {
    const promised = answer.properties?.[name];
    if (promised === undefined) return [`${path}.${name} is not in the document`];
    const mayMiss = read.required?.includes(name) === true && answer.required?.includes(name) !== true;
    return [...(mayMiss ? [`${path}.${name} may be missing`] : []), ...broken(schema, promised, `${path}.${name}`)];
  });
}

/** What an endpoint has that the document has not. */
function faultsOf({ method, path, status, answer, idempotent, dryRun }: Endpoint): string[] {
  const operation = document.paths[path.replaceAll(/:([a-z]+)/g, "{$1}")]?.[method];
  const response = operation?.responses[status];
  if (operation === undefined || response === undefined) return [`there is no ${method} ${path} with ${status}`];
  const names = (operation.parameters ?? []).map(({ name }) => name);
  // Both ways: with a key that is not taken a repeated request would do it twice.
  const takesKey = names.includes("Idempotency-Key");
  const expectsKey = idempotent === true || dryRun === true;
  const schema = response.content?.["application/json"]?.schema;
  return [
    ...(takesKey === expectsKey ? [] : [`it ${takesKey ? "takes" : "does not take"} an Idempotency-Key`]),
    ...(dryRun === true && !names.includes("dryRun") ? ["it has no dry run"] : []),
    ...(schema === undefined
      ? status === 204
        ? []
        : ["it has no body"]
      : broken(z.toJSONSchema(answer) as Schema, schema, "")),
  ];
}

test.each(Object.entries<Endpoint>(endpoints))("%s is as the API's document says", (_, endpoint) => {
  expect(faultsOf(endpoint)).toEqual([]);
});

test("negative control: what the document does not promise is found", () => {
  const wrong: Endpoint = {
    method: "get",
    path: "/api/cloud-pods/:pod",
    status: 200,
    answer: z.object({
      vmid: z.string(),
      ip: z.string(),
      color: z.string(),
      lastError: z.object({ code: z.number() }).nullable(),
    }),
    idempotent: true,
  };
  expect(faultsOf(wrong)).toEqual([
    "it does not take an Idempotency-Key",
    ".vmid is number, read as string",
    ".ip may be null",
    ".color is not in the document",
    ".lastError.code is string, read as number",
  ]);
  expect(faultsOf({ ...wrong, path: "/api/nowhere" })).toEqual(["there is no get /api/nowhere with 200"]);
});
