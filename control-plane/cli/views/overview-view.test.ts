import { expect, test } from "vitest";
import type { AnswerOf } from "../api/endpoints.ts";
import { renderOverview } from "./overview-view.ts";

type Overview = AnswerOf<"showOverview">;

const at = "2026-03-02T10:00:00.000Z";
const resource = { allocatable: 8, allocated: 2, free: 6 };
const quiet: Overview = {
  at,
  coreNodes: [],
  queues: { tasks: [], commands: [], notifications: [], deadLetters: [] },
  provisioning: {
    succeeded: 0,
    failed: 0,
    cancelled: 0,
    successRate: null,
    ordersWithoutPlace: 0,
    recentFailures: [],
  },
  metering: {
    hosts: 1,
    neverReported: 0,
    lag: null,
    behind: [],
    spools: { total: 0 },
    lostBatches: 0,
    rolledUpTo: null,
    dirtyHours: { waiting: 0 },
    lastVerification: null,
  },
  security: {
    users: { active: 1, administrators: 1, operators: 0, liveSessions: 1 },
    apiTokens: { live: 0, withoutExpiry: 0 },
    signIns: { failedInLastHour: 0, blockedAccounts: 0, blockedAddresses: 0 },
    certificates: { authorityExpiresAt: null, expiring: [], revokedNodes: [] },
    audit: { unsealedRows: 0, lastVerifiedAt: null, wholeVerifiedAt: null, intact: null, fault: null },
  },
  capacity: [],
  pods: { byStatus: [], onSilentHosts: 0, powerDrift: 0 },
  orphans: { unmanaged: 0, misplaced: 0 },
  backups: { running: 0, succeeded: 0, failed: 0, lastSuccessAt: null, due: 0, oldestDueAt: null, damaged: 0 },
  findings: { byKind: [], held: false },
  drains: { running: [], incomplete: [] },
  controlPlane: { replicas: [], holdsOrders: false, database: {} },
};

function shown(changes: Partial<Overview>): string {
  return renderOverview({ ...quiet, ...changes }, Date.parse(at));
}

test("a proof of metering that failed stands out, one that held is told", () => {
  const proof = (findings: number): string =>
    shown({
      metering: {
        ...quiet.metering,
        rolledUpTo: "2026-03-02T09:00:00.000Z",
        lastVerification: { yearMonth: "2026-03", verifiedAt: "2026-03-02T07:00:00.000Z", findings },
      },
    });
  expect(shown({})).toMatch(/^metering proof: +none yet$/m);
  expect(proof(0)).toMatch(/^metering proof: +2026-03, 3h ago: all agrees$/m);
  expect(proof(2)).toMatch(
    /^metering proof: +2026-03, 3h ago: FAILED, 2 findings \(cloudpods metering verify names them\)$/m,
  );
  expect(proof(0)).toContain("rolled up to 2026-03-02T09:00:00.000Z");
});

test("one of what is measured is told as one", () => {
  const one = { spools: { total: 1 }, lostBatches: 1, dirtyHours: { waiting: 1 } };
  expect(shown({ metering: { ...quiet.metering, ...one } })).toMatch(
    /; 1 batch waiting on hosts; .*; 1 hour to roll up; 1 batch LOST in the last 24 h$/m,
  );
  expect(shown({})).toContain("0 batches waiting on hosts; no hour is rolled up yet; 0 hours to roll up");
});

test("of the audit log new rows are one proof and all of it is another", () => {
  const audit = {
    unsealedRows: 1,
    lastVerifiedAt: "2026-03-02T09:59:30.000Z",
    wholeVerifiedAt: "2026-03-02T00:00:00.000Z",
    intact: true,
    fault: null,
  };
  const line = (changes: object): string | undefined =>
    /^audit log: +(.*)$/m.exec(shown({ security: { ...quiet.security, audit: { ...audit, ...changes } } }))?.[1];
  expect(line({})).toBe("intact (new rows proved 30s ago, all of it 10h ago); 1 row without a seal yet");
  expect(line({ wholeVerifiedAt: null })).toContain("all of it not yet)");
  expect(line({ intact: false, fault: { seq: "8", code: "ROW_CHANGED" } })).toMatch(
    /^NOT WHAT WAS SEALED: ROW_CHANGED at row 8 /,
  );
  expect(shown({})).toMatch(/^audit log: +not proved yet; 0 rows/m);
});

test("without hosts there is neither capacity nor room", () => {
  expect(shown({})).toMatch(/^hosts: +none yet$/m);
  expect(shown({})).not.toMatch(/Capacity|Room/);
});

test("what ends, what waits and what the database promises is shown", () => {
  const text = shown({
    security: {
      ...quiet.security,
      certificates: { ...quiet.security.certificates, authorityExpiresAt: "2036-01-01T00:00:00.000Z" },
    },
    backups: { ...quiet.backups, due: 2, oldestDueAt: "2026-03-02T09:30:00.000Z" },
    controlPlane: { ...quiet.controlPlane, database: { synchronous_commit: "off", synchronous_standby_names: "" } },
    capacity: [
      {
        region: "eu",
        hosts: 1,
        hostsOpen: 1,
        hostsOverallocated: 0,
        cpuCores: resource,
        memoryMb: resource,
        diskGb: resource,
        headroom: [
          { planCode: "CLOUD_POD_STARTER", pods: 6 },
          { planCode: "CLOUD_POD_PRO", pods: 0 },
        ],
      },
    ],
  });
  expect(text).toMatch(/^certificate authority: +expires 2036-01-01T00:00:00\.000Z$/m);
  expect(text).toMatch(/^backups: .* 2 due \(oldest 30m\);/m);
  expect(text).toMatch(/^database: +synchronous_commit off, synchronous_standby_names none$/m);
  expect(text).toMatch(/^eu: +6 CLOUD_POD_STARTER, 0 CLOUD_POD_PRO$/m);
});
