import { afterAll, beforeAll, expect, test } from "vitest";
import { bounds, cloneSpec, createFixture, runningWish, wishFor } from "../../../test/support/container-fixture.ts";
import type { Fixture } from "../../../test/support/container-fixture.ts";

const minuteMs = 60_000;
let fixture: Fixture;
let nowMs = 0;

beforeAll(async () => {
  fixture = await createFixture();
});

afterAll(() => fixture.dispose());

async function programs(): Promise<string[]> {
  return (await fixture.host.invocations()).map(({ argv }) => argv.slice(0, 2).join(" "));
}

test("an idle agent starts no process in an hour and more; own work on disks is looked at once", async () => {
  const containers = fixture.restart({ clock: { epochMs: Date.now, monotonicMs: () => nowMs } });
  const hours = async (count: number): Promise<void> => {
    for (let minute = 0; minute < count * 60; minute += 1) {
      nowMs += minuteMs;
      expect(await containers.inventory()).toMatchObject({ known: true, storages: [{ available: true }, {}] });
    }
  };
  // What a Hello asks.
  await containers.pveIdentity();
  await containers.inventory("recent");
  const before = await programs();
  expect(before).toEqual(expect.arrayContaining(["pveversion", "pvesm status"]));
  await hours(3);
  expect(await programs()).toEqual(before);

  await containers.converge(runningWish(cloneSpec(fixture.host)), bounds());
  await containers.converge(wishFor({ present: false, generation: 2n }), bounds());
  const worked = await programs();
  await hours(2);
  expect((await programs()).slice(worked.length)).toEqual(["pvesm status"]);
}, 60_000);
