import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { matchPlanCode } from "./match-plan-code.ts";
import { planCatalogue } from "./plan-catalogue.ts";

const codes = planCatalogue.map(({ code }) => code);

describe("matchPlanCode", () => {
  it.each([
    ["CLOUD_POD_STARTER", "CLOUD_POD_STARTER"],
    ["cloud_pod_starter", "CLOUD_POD_STARTER"],
    ["STARTER", "CLOUD_POD_STARTER"],
    ["student", "CLOUD_POD_STUDENT"],
    ["BUSINESS", "BUSINESS"],
    ["business", "BUSINESS"],
    ["cloud_pod_business", "CLOUD_POD_BUSINESS"],
    ["pod_business", "CLOUD_POD_BUSINESS"],
    [" mini ", "MINI"],
  ])("%s means %s", (meant, code) => expect(matchPlanCode(codes, meant)).toBe(code));

  it.each(["", " ", "_", "ARTER", "GOLD", "CLOUD_POD"])("%j means none", (meant) =>
    expect(matchPlanCode(codes, meant)).toBeUndefined(),
  );

  it("means none where several could be meant", () => {
    expect(matchPlanCode(["A_BIG", "B_BIG"], "big")).toBeUndefined();
  });

  it("always finds an exact code, in any case", () => {
    fc.assert(
      fc.property(fc.constantFrom(...codes), fc.func(fc.boolean()), (code, upper) => {
        const written = code.replaceAll(/./g, (letter, index: number) =>
          upper(index) ? letter : letter.toLowerCase(),
        );
        expect(matchPlanCode(codes, written)).toBe(code);
      }),
    );
  });
});
