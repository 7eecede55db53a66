import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { ContainerSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import {
  VMID,
  bounds,
  cloneSpec,
  createFixture,
  removePod,
  runningWish,
  wishFor,
} from "../../../test/support/container-fixture.ts";
import type { Fixture } from "../../../test/support/container-fixture.ts";
import type { ContainerWish } from "./container-wish.ts";

let fixture: Fixture;

beforeAll(async () => {
  fixture = await createFixture();
});

afterAll(() => fixture.dispose());

afterEach(() => removePod(fixture));

const file = (vmid = VMID): string => join(fixture.paths.pveRoot, "firewall", `${vmid}.fw`);
const text = (): string => readFileSync(file(), "utf8");
const wish = (ip: string, ipFilter = true): ContainerSpec => {
  const { network } = cloneSpec(fixture.host);
  if (network === undefined) throw new Error("the specification of these tests has a network");
  return cloneSpec(fixture.host, { network: { ...network, ip, firewall: true, ipFilter } });
};
const converge = (wanted: ContainerWish) => fixture.containers.converge(wanted, bounds());

test("the filter is there before the container first starts, follows its address and goes with it", async () => {
  const seen: (string | undefined)[] = [];
  const onProgress = ({ step }: { step: string }): void => {
    if (step === "start") seen.push(existsSync(file()) ? text() : undefined);
  };
  await fixture.containers.converge(runningWish(wish("10.0.0.5/24")), bounds({ onProgress }));
  expect(seen[0]).toContain("[IPSET ipfilter-net0] # cloudpods\n10.0.0.5\n");
  expect(text()).toMatch(/enable: 1\nmacfilter: 1\nipfilter: 1\ndhcp: 1\npolicy_in: ACCEPT\n/u);

  await converge(runningWish(wish("10.0.0.6/24"), { generation: 2n }));
  expect(text()).toContain("\n10.0.0.6\n");
  expect(text()).not.toContain("10.0.0.5");

  // An unknown address is not filtered: an empty set would cut the pod off.
  await converge(runningWish(wish("dhcp"), { generation: 3n }));
  expect(text()).toContain("ipfilter: 0");
  expect(text()).not.toContain("IPSET");
  const before = (await fixture.host.invocations()).length;
  await converge(runningWish(wish("dhcp"), { generation: 3n }));
  expect((await fixture.host.invocations()).length).toBe(before);

  await converge(wishFor({ present: false, generation: 4n }));
  expect(existsSync(file())).toBe(false);
}, 60_000);

test("an operator's rules stay when the section comes, changes and goes", async () => {
  // A clone takes the rules of its template over.
  mkdirSync(join(fixture.paths.pveRoot, "firewall"), { recursive: true });
  const rules = "[RULES]\n\nIN SSH(ACCEPT) -i net0\n";
  writeFileSync(file(fixture.host.templateVmid), rules);
  await converge(runningWish(wish("10.0.0.5/24"), { power: Power.POWER_STOPPED }));
  expect(text().startsWith(rules)).toBe(true);
  expect(text()).toContain("10.0.0.5");
  await converge(runningWish(wish("10.0.0.5/24", false), { generation: 2n, power: Power.POWER_STOPPED }));
  expect(text()).toBe(rules);
  rmSync(file(fixture.host.templateVmid));
}, 60_000);

test("without quorum nothing is written, and what a lost container left is taken away", async () => {
  await converge(runningWish(wish("10.0.0.5/24")));
  const before = text();
  fixture.host.setFaults([{ noQuorum: true }]);
  await expect(converge(runningWish(wish("10.0.0.7/24"), { generation: 2n }))).rejects.toMatchObject({
    code: "NO_QUORUM",
  });
  expect(text()).toBe(before);
  fixture.host.clearFaults();
  await converge(wishFor({ present: false, generation: 3n }));
  // A host that died between the two left the file of a container that is gone.
  writeFileSync(file(), before);
  await converge(wishFor({ present: false, generation: 3n }));
  expect(existsSync(file())).toBe(false);
}, 60_000);
