import { existsSync } from "node:fs";
import { join } from "node:path";
import { readBootId } from "./clock/disciplined-clock.ts";
import type { AgentConfig } from "./config.ts";
import { checkCertificate, readCertificate } from "./enrolment/check-certificate.ts";
import { isEnrolled, loadIdentity } from "./enrolment/identity-files.ts";
import { openJournalForReading } from "./journal/open-journal.ts";
import { createJournal } from "./journal/sqlite-journal.ts";
import { lockStateDir } from "./state-lock.ts";
import { readStatus } from "./status-file.ts";
import { AgentError } from "./agent-error.ts";

/** What an operator on the host may want to know; no secret is in it. */
export function describeStatus(config: AgentConfig): object {
  const { stateDir } = config;
  const isRunning = isLocked(stateDir);
  return {
    stateDir,
    role: config.role,
    isRunning,
    identity: isEnrolled(stateDir) ? describeIdentity(stateDir) : null,
    // Of the last agent; what a dead one wrote about its session no longer holds.
    agent: isRunning ? (readStatus(stateDir) ?? null) : null,
    ...describeJournal(config),
  };
}

function describeIdentity(stateDir: string): object {
  const { nodeId, serverUrl, gatewayAddress, brokerUrl, certificatePem, caPem } = loadIdentity(stateDir);
  const { serial, notBeforeMs, notAfterMs } = readCertificate(certificatePem);
  const validity = { notBefore: new Date(notBeforeMs).toISOString(), notAfter: new Date(notAfterMs).toISOString() };
  const fault = checkCertificate(certificatePem, caPem, Date.now());
  return { nodeId, serverUrl, gatewayAddress, brokerUrl, certificate: { serial, ...validity, fault: fault ?? null } };
}

function describeJournal(config: AgentConfig): object {
  const path = join(config.stateDir, "journal.db");
  if (!existsSync(path)) return {};
  const journal = createJournal(openJournalForReading(path));
  try {
    return {
      awaitsOwnership: journal.ownershipBootId() !== readBootId(config.host.procRoot),
      unfinishedCommands: journal.unfinished().map(({ commandId, operation, vmid, state }) => ({
        commandId,
        operation,
        vmid,
        state,
      })),
    };
  } finally {
    journal.close();
  }
}

function isLocked(stateDir: string): boolean {
  if (!existsSync(stateDir)) return false;
  try {
    lockStateDir(stateDir).release();
    return false;
  } catch (error) {
    if (error instanceof AgentError && error.code === "STATE_DIR_IN_USE") return true;
    throw error;
  }
}
