import { expect, it } from "vitest";
import { comparePlans } from "./compare-plans.ts";
import type { Plan } from "./resolve-plan.ts";

const plan = (code: string, changes: Partial<Plan>): Plan => ({
  code,
  name: code,
  family: "shared",
  description: "",
  cores: 1,
  memoryMb: 1_024,
  swapMb: 512,
  diskGb: 10,
  bandwidthGb: null,
  overagePolicy: "none",
  websitesMax: null,
  emailsMax: null,
  maxPerTenant: null,
  requiresVerifiedEmail: false,
  features: [],
  version: 1,
  prices: [{ amount: "1.00", currency: "USD" }],
  ...changes,
});

it("has a row for each feature and a value for each plan", () => {
  const { plans, rows } = comparePlans([
    plan("A", {
      features: ["NVMe storage"],
      prices: [
        { amount: "2.00", currency: "EUR" },
        { amount: "2.49", currency: "USD" },
      ],
    }),
    plan("B", { bandwidthGb: 50 }),
  ]);
  expect(plans.map(({ code }) => code)).toEqual(["A", "B"]);
  expect(rows.every(({ values }) => values.length === 2)).toBe(true);
  expect(rows.filter(({ feature }) => feature === "price")).toEqual([
    { feature: "price", name: "Price per month", unit: "EUR", values: ["2.00", null] },
    { feature: "price", name: "Price per month", unit: "USD", values: ["2.49", "1.00"] },
  ]);
  expect(rows.find(({ feature }) => feature === "bandwidthGb")?.values).toEqual([null, 50]);
  expect(rows.find(({ name }) => name === "NVMe storage")?.values).toEqual([true, false]);
});
