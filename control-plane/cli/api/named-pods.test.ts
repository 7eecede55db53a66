import { expect, test } from "vitest";
import { ApiRefusal } from "../errors.ts";
import type { Api } from "./client.ts";
import { withNamedPods } from "./named-pods.ts";

/** A control plane that has these pods, and what it was asked. */
function controlPlane(pods: Readonly<Record<string, readonly number[]>>, who: "customer" | "operator" = "customer") {
  const asked: [string, unknown][] = [];
  const api = {
    async call(name: string, input: { query?: { hostname: string }; pod?: string }) {
      asked.push([name, input.pod ?? input.query?.hostname]);
      if (name === "listPods" && who === "operator")
        throw new ApiRefusal({ status: 422, title: "Invalid", detail: "", error: "TENANT_REQUIRED" }, "", undefined);
      const data = (pods[input.query?.hostname ?? ""] ?? []).map((vmid) => ({ vmid }));
      return await Promise.resolve({ body: { data, nextCursor: null }, text: "" });
    },
  };
  // Only what the names of pods need.
  return { asked, api: withNamedPods(api as unknown as Api) };
}

test("a hostname is looked up once and takes the place of the VMID", async () => {
  const { asked, api } = controlPlane({ "shop-1": [100_000] });
  await api.call("showPod", { pod: "shop-1" });
  await api.call("stopPod", { pod: "shop-1", body: {} });
  expect(asked).toEqual([
    ["listPods", "shop-1"],
    ["showPod", "100000"],
    ["stopPod", "100000"],
  ]);
});

test.each(["100000", "01a2162d-180d-7059-8cdd-7f82994538d4"])("%s is not looked up", async (pod) => {
  const { asked, api } = controlPlane({});
  await api.call("showPod", { pod });
  expect(asked).toEqual([["showPod", pod]]);
});

test("an operator without a tenant means the pods of all", async () => {
  const { asked, api } = controlPlane({ "shop-1": [100_007] }, "operator");
  await api.call("migratePod", { pod: "shop-1", body: {} });
  expect(asked).toEqual([
    ["listPods", "shop-1"],
    ["listAllPods", "shop-1"],
    ["migratePod", "100007"],
  ]);
});

test("nothing is done to a pod whose hostname is nobody's or several pods'", async () => {
  const { asked, api } = controlPlane({ "shop-1": [100_000, 100_001] });
  await expect(api.call("destroyPod", { pod: "shop-2" })).rejects.toMatchObject({ kind: "not-found" });
  await expect(api.call("destroyPod", { pod: "shop-1" })).rejects.toThrow(
    "Several pods have the hostname shop-1: name one by its VMID (100000, 100001).",
  );
  expect(asked.map(([name]) => name)).toEqual(["listPods", "listPods"]);
});
