import { type ClientDuplexStream, type ServiceError, status } from "@grpc/grpc-js";
import type {
  Command,
  ConnectRequest,
  ConnectResponse,
  Hello,
  Inventory,
  Query,
  QueryAnswer,
  Welcome,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { CommandResult } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Logger } from "pino";
import { AgentError, messageOf } from "../agent-error.ts";
import type { DisciplinedClock } from "../clock/disciplined-clock.ts";
import type { AgentMessage } from "../commands/command-schedule.ts";
import type { SizesAge } from "../containers/storage-sizes.ts";
import type { Journal } from "../journal/journal.ts";
import { type Outgoing, createOutgoing } from "./outgoing.ts";

/** What a session does with what it hears, and where it takes what it says. */
export interface SessionDoors {
  readonly buildHello: () => Promise<Hello>;
  /** Takes the Welcome over; commands are handed on after it has returned. */
  readonly onWelcome: (welcome: Welcome) => void;
  readonly onCommand: (command: Command) => Promise<void>;
  readonly answerQuery: (query: Query) => Promise<QueryAnswer>;
  readonly inventory: (sizes: SizesAge) => Promise<Inventory>;
  readonly clock: Pick<DisciplinedClock, "monotonicMs" | "epochMs" | "recordExchange">;
  readonly journal: Pick<Journal, "unconfirmed" | "confirm">;
  readonly log: Logger;
}

/** A session that is open. */
export interface Session {
  send(message: AgentMessage): void;
  /** Resolves when the session is over, with the reason. */
  readonly ended: Promise<AgentError>;
  /** Whether the control plane has welcomed this session. */
  isWelcomed(): boolean;
  close(reason: AgentError): void;
}

/** An end that the gateway has decided or the transport brought about. */
export class SessionFailure extends AgentError {
  /** The gateway asks to stay away for so long, in ms. */
  readonly retryAfterMs: number;

  constructor(code: string, message: string, retryAfterMs: number) {
    super(code, message, { retryable: true });
    this.retryAfterMs = retryAfterMs;
  }
}

type Stream = ClientDuplexStream<ConnectRequest, ConnectResponse>;

const welcomeDeadlineMs = 20_000;
const clockIntervalMs = 20_000;
/** Results that were not confirmed are sent again this often, so many at a time. */
const resultRepeatMs = 15_000;
const resultsAtOnce = 200;
const maxOutgoing = 1_000;
const maxParallelQueries = 8;
/** Used until the Welcome says better; also the least that a Welcome may ask for. */
const leastInventoryIntervalMs = 1_000;

/** Runs one session over a fresh stream, from Hello to its end. */
export function openSession(stream: Stream, doors: SessionDoors): Session {
  const { log } = doors;
  const outgoing = createOutgoing(stream, maxOutgoing);
  const over = Promise.withResolvers<AgentError>();
  const timers: NodeJS.Timeout[] = [];
  let isOver = false;
  let isWelcomed = false;

  const end = (reason: AgentError): void => {
    if (isOver) return;
    isOver = true;
    for (const timer of timers) clearTimeout(timer);
    stream.cancel();
    over.resolve(reason);
  };
  const every = (intervalMs: number, work: () => void): void => {
    timers.push(setInterval(work, intervalMs));
  };
  // After its end a stream may still report its cancellation; nobody is interested any more.
  stream.on("error", (error: ServiceError) => end(streamFailure(error)));
  stream.on("end", () => end(closed("SESSION_CLOSED", "The gateway closed the session.")));
  const giveUp = (): void => void (isWelcomed || end(closed("NO_WELCOME", "The gateway sent no Welcome in time.")));
  timers.push(setTimeout(giveUp, welcomeDeadlineMs));

  const reportInventory = createInventoryReporter(doors, outgoing);
  const queries = createQueryAnswerer(doors, outgoing);
  const welcome = (message: Welcome): void => {
    if (isWelcomed) return log.warn("a second Welcome in one session is ignored");
    isWelcomed = true;
    doors.onWelcome(message);
    const askTime = (): boolean =>
      outgoing.send({ $case: "clockRequest", value: { agentMonotonicUs: microseconds(doors.clock.monotonicMs()) } });
    const repeatResults = (): void => sendUnconfirmed(doors, outgoing);
    const inventoryMs = Math.max(leastInventoryIntervalMs, message.inventoryIntervalMs);
    askTime();
    repeatResults();
    every(clockIntervalMs, askTime);
    every(resultRepeatMs, repeatResults);
    every(inventoryMs, () => reportInventory("known", message.sessionEpoch));
  };
  const handle = async ({ message }: ConnectResponse): Promise<void> => {
    if (message === undefined) return log.warn("a message of an unknown kind is ignored");
    if (message.$case === "welcome") return welcome(message.value);
    if (!isWelcomed) throw new AgentError("PROTOCOL_ERROR", `The gateway sent ${message.$case} before its Welcome.`);
    switch (message.$case) {
      case "command":
        return doors.onCommand(message.value);
      case "resultStored":
        return noteStored(message.value.commandId, doors);
      case "query":
        return queries(message.value);
      case "clockReply":
        return void doors.clock.recordExchange({
          sentMonotonicMs: Number(message.value.agentMonotonicUs / 1_000n),
          receivedMonotonicMs: doors.clock.monotonicMs(),
          serverTimeMs: Number(message.value.serverTimeMs),
        });
      case "inventoryRequest":
        return reportInventory("recent", 0n);
    }
  };
  void (async () => {
    try {
      outgoing.send({ $case: "hello", value: await doors.buildHello() });
      // One message at a time: commands are admitted in the order in which they were sent.
      for await (const response of stream) {
        await handle(response);
        if (isOver) return;
      }
    } catch (error) {
      end(error instanceof AgentError ? error : closed("SESSION_FAILED", messageOf(error)));
    }
  })();
  return {
    send: (message) => void (isWelcomed && !isOver && outgoing.send(message)),
    ended: over.promise,
    isWelcomed: () => isWelcomed,
    close: end,
  };
}

function sendUnconfirmed({ journal }: SessionDoors, outgoing: Outgoing): void {
  for (const { result } of journal.unconfirmed(resultsAtOnce)) {
    if (!outgoing.send({ $case: "result", value: CommandResult.decode(result) })) return;
  }
}

/** Without the note the result is sent once more, no worse. */
function noteStored(commandId: string, { journal, clock, log }: SessionDoors): void {
  try {
    journal.confirm(commandId, clock.epochMs());
  } catch (error) {
    log.error({ commandId, reason: messageOf(error) }, "the journal could not be written");
  }
}

/** Sends the inventory; a look that takes longer than the interval is not doubled. */
function createInventoryReporter(
  doors: SessionDoors,
  outgoing: Outgoing,
): (sizes: SizesAge, sessionEpoch: bigint) => void {
  let isLooking = false;
  let epoch = 0n;
  return (sizes, sessionEpoch) => {
    if (sessionEpoch > 0n) epoch = sessionEpoch;
    if (isLooking) return;
    isLooking = true;
    doors
      .inventory(sizes)
      .then((inventory) => outgoing.send({ $case: "inventory", value: { ...inventory, sessionEpoch: epoch } }))
      .catch((error: unknown) => doors.log.error({ error: messageOf(error) }, "the inventory failed"))
      .finally(() => (isLooking = false));
  };
}

/** Answers questions beside the stream of commands, a few at a time. */
function createQueryAnswerer(doors: SessionDoors, outgoing: Outgoing): (query: Query) => void {
  let answering = 0;
  const answer = (value: QueryAnswer): void => void outgoing.send({ $case: "queryAnswer", value });
  const refuse = (query: Query, code: string, message: string): void =>
    answer({ queryId: query.queryId, commandLines: [], error: { code, message, retryable: true }, plans: [] });
  return (query) => {
    if (answering >= maxParallelQueries) return refuse(query, "NODE_BUSY", "Too many questions at a time.");
    answering += 1;
    doors
      .answerQuery(query)
      .then(answer, (error: unknown) => refuse(query, "INTERNAL_ERROR", messageOf(error)))
      .finally(() => (answering -= 1));
  };
}

/** What the gateway or the transport gave as the reason of an end. */
function streamFailure(error: ServiceError): SessionFailure {
  // The gateway's details begin with its own stable code.
  const [, code, message] = /^([A-Z][A-Z_]+): (.*)$/s.exec(error.details) ?? [];
  const [retryAfter] = error.metadata?.get("retry-after-ms") ?? [];
  return new SessionFailure(
    code ?? `GRPC_${status[error.code] ?? "UNKNOWN"}`,
    message ?? (error.details === "" ? error.message : error.details),
    typeof retryAfter === "string" && /^\d{1,9}$/.test(retryAfter) ? Number(retryAfter) : 0,
  );
}

function closed(code: string, message: string): AgentError {
  return new AgentError(code, message, { retryable: true });
}

function microseconds(ms: number): bigint {
  return BigInt(Math.round(ms * 1_000));
}
