import { expect, test } from "vitest";
import { usageMonth, usageMonthOf } from "./usage-month.ts";

test("is from midnight to midnight UTC, leap years and year ends included", () => {
  expect(usageMonth("2024-02")).toEqual({
    yearMonth: "2024-02",
    start: new Date("2024-02-01T00:00:00Z"),
    end: new Date("2024-03-01T00:00:00Z"),
  });
  expect(usageMonthOf(new Date("2025-12-31T23:59:59.999Z")).end).toEqual(new Date("2026-01-01T00:00:00Z"));
  expect(usageMonthOf(new Date("2026-01-01T00:00:00+05:00")).yearMonth).toBe("2025-12");
});

test.each(["2026-13", "2026-1", "26-01", "2026-00", ""])("%j is no month", (text) => {
  expect(() => usageMonth(text)).toThrow(RangeError);
});
