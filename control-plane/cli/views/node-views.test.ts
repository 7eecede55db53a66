import { expect, test } from "vitest";
import type { AnswerOf } from "../api/endpoints.ts";
import { describeJoinToken, describeOpened, renderNode, renderNodes, renderRemoval } from "./node-views.ts";

const promised = { allocatable: 8, allocated: 2, free: 6 };
const node: AnswerOf<"showNode"> = {
  id: "01a2162d-180d-7059-8cdd-7f82994538d4",
  name: "pve1",
  cluster: null,
  role: "hypervisor",
  region: "eu",
  labels: {},
  state: "online",
  stateSince: "2026-03-02T08:00:00.000Z",
  schedulable: false,
  cordonReason: "disk is failing",
  cordonedAt: "2026-03-02T09:30:00.000Z",
  cordonedUntil: "2026-03-02T12:00:00.000Z",
  cordonedBy: "user:ada",
  cordonedByEmail: null,
  maintenanceNote: null,
  backupStorage: null,
  lastHeartbeatAt: null,
  agentVersion: null,
  pveVersion: null,
  clockSkewMs: null,
  spoolDepth: null,
  certificateExpiresAt: null,
  cpu: promised,
  memoryMb: promised,
  conditions: [],
  storages: [],
  podCount: 0,
  pods: [],
};
const nowMs = Date.parse("2026-03-02T10:00:00.000Z");

test("a host that is cordoned shows since when, apart from since when it is online", () => {
  const text = renderNode(node, nowMs);
  expect(text).toMatch(/^state: +online since 2026-03-02T08:00:00\.000Z \(2h\)$/m);
  expect(text).toMatch(
    /^cordoned: +disk is failing, since 2026-03-02T09:30:00\.000Z \(30m\), by user:ada, until 2026-03-02T12:00:00\.000Z$/m,
  );
  expect(renderNode({ ...node, schedulable: true }, nowMs)).not.toContain("cordoned");
  expect(renderNodes([node], nowMs)).toContain(" online, cordoned ");
});

test("a host that was removed is that and not cordoned", () => {
  const removed = { ...node, state: "removed" };
  expect(renderNodes([removed], nowMs)).toMatch(/ removed +2h /);
  expect(renderNode(removed, nowMs)).not.toContain("cordoned");
});

test("the list of hosts shows the room on their storages for root disks", () => {
  const storage = { type: "lvmthin", available: true, freeGb: 70 };
  const storages = [
    { ...storage, name: "local-lvm", holdsRootDisks: true, holdsBackups: false, allocatableGb: 100, allocatedGb: 30 },
    { ...storage, name: "backups", holdsRootDisks: false, holdsBackups: true, allocatableGb: 900, allocatedGb: 0 },
  ];
  const list = renderNodes([{ ...node, storages }], nowMs);
  expect(list).toMatch(/^NAME .* MEMORY +DISK +AGENT/m);
  expect(list).toMatch(/^pve1 .* 30\/100 GB +-/m);
  // What `nodes backup-storage` may be told is found here.
  const shown = renderNode({ ...node, storages }, nowMs);
  expect(shown).toMatch(/^local-lvm +lvmthin +disks +yes /m);
  expect(shown).toMatch(/^backups +lvmthin +backups +yes /m);
});

test("a host that is opened takes pods only when it is online", () => {
  expect(describeOpened(node)).toBe("pve1 takes new pods.");
  expect(describeOpened({ ...node, state: "lost" })).toMatch(/ once it is online, and is lost\.$/);
});

test("the removal of a host says what backups went with it", () => {
  expect(renderRemoval("pve1", { backupsGone: 0 })).toBe("pve1 is no longer in the fleet.");
  expect(renderRemoval("pve1", { backupsGone: 1 })).toContain("Gone with it: 1 backup that no other host sees");
  expect(renderRemoval("pve1", { backupsGone: 12 })).toContain("12 backups");
});

test("a host that is no hypervisor has to be told so, or its agent looks for containers", () => {
  const token = { id: "1", name: "web1", role: "web", expiresAt: "2026-03-02T10:15:00.000Z", token: "cp1.x" };
  expect(describeJoinToken(token, "https://cloud.example.com").split("\n").slice(1)).toEqual([
    "  cloudpods-agent join --server https://cloud.example.com --token cp1.x",
    "Before the agent runs there, say CLOUDPODS_AGENT_ROLE=web in /etc/default/cloudpods-agent.",
  ]);
  expect(describeJoinToken({ ...token, role: "hypervisor" }, "https://cloud.example.com")).not.toContain("ROLE");
});
