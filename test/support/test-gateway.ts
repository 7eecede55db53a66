import { Server, ServerCredentials, type ServerDuplexStream, type ServiceDefinition } from "@grpc/grpc-js";
import { agentGatewayService } from "@cloudpods/proto/agent-gateway-service";
import {
  type Command,
  type CommandResult,
  type ConnectRequest,
  ConnectResponse,
  type Hello,
  Welcome,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { SigningAuthority } from "../../control-plane/src/nodes/certificate-authority.ts";
import { freePort } from "./free-port.ts";
import { certifyServer } from "./test-authority.ts";
import { until } from "./until.ts";

type Message = NonNullable<ConnectRequest["message"]>;
/** What the server may write: a message, or raw bytes that stand for one. */
type Outgoing = ConnectResponse | Buffer;
type Stream = ServerDuplexStream<ConnectRequest, Outgoing>;

/** A gateway over real gRPC and mutual TLS whose every word the test decides. */
export interface TestGateway {
  readonly address: string;
  /** Everything that agents said, in order, over all sessions. */
  readonly received: readonly Message[];
  /** Merged into every Welcome from now on. */
  setWelcome(change: Partial<Welcome>): void;
  /** Whether results are confirmed as soon as they come; true at first. */
  confirmResults(isOn: boolean): void;
  /** Says something in the present session. */
  say(message: NonNullable<ConnectResponse["message"]>): void;
  sayBytes(bytes: Buffer): void;
  command(command: Command): void;
  /** Ends the present session from the server's side. */
  endSession(): void;
  hellos(): Hello[];
  results(commandId: string): CommandResult[];
  /** Waits for the nth session since the start to be welcomed, 1 being the first. */
  session(count: number): Promise<Hello>;
  result(commandId: string, deadlineMs?: number): Promise<CommandResult>;
  stop(): void;
}

export interface TestGatewayOptions {
  readonly authority: SigningAuthority;
  readonly nodeId: string;
  /** Authority that client certificates must come from; `authority` by default. */
  readonly clientAuthority?: SigningAuthority;
  readonly names?: readonly string[];
  /** The same port again after a `stop`. */
  readonly port?: number;
}

/** The service, with bytes let through as they are. */
const service = {
  connect: {
    ...agentGatewayService.connect,
    responseSerialize: (message: Outgoing) =>
      Buffer.isBuffer(message) ? message : Buffer.from(ConnectResponse.encode(message).finish()),
  },
} satisfies ServiceDefinition;

export async function startTestGateway(options: TestGatewayOptions): Promise<TestGateway> {
  const { authority, nodeId } = options;
  const received: Message[] = [];
  let welcomeChange: Partial<Welcome> = {};
  let isConfirming = true;
  let stream: Stream | undefined;
  let epoch = 0n;

  const welcome = (): Welcome =>
    Welcome.fromPartial({
      sessionEpoch: (epoch += 1n),
      fleetEpoch: 1n,
      spoolContiguousSeq: -1n,
      serverTimeMs: BigInt(Date.now()),
      sampleIntervalMs: 60_000,
      heartbeatIntervalMs: 10_000,
      inventoryIntervalMs: 60_000,
      caBundlePem: authority.pem,
      nodeId,
      brokerUrl: "",
      ...welcomeChange,
    });
  const say = (message: NonNullable<ConnectResponse["message"]>): void => void stream?.write({ message });
  const connect = (call: Stream): void => {
    call.on("error", () => undefined);
    call.on("end", () => call.end());
    call.on("data", ({ message }: ConnectRequest) => {
      if (message === undefined) return;
      received.push(message);
      if (message.$case === "hello") {
        stream = call;
        say({ $case: "welcome", value: welcome() });
      }
      if (message.$case === "result" && isConfirming) {
        say({ $case: "resultStored", value: { commandId: message.value.commandId } });
      }
      if (message.$case === "clockRequest") {
        const { agentMonotonicUs } = message.value;
        say({ $case: "clockReply", value: { agentMonotonicUs, serverTimeMs: BigInt(Date.now()) } });
      }
    });
  };
  const server = new Server();
  server.addService(service, { connect });
  const { certificatePem, keyPem } = await certifyServer(authority, options.names);
  const wantedPort = options.port ?? (await freePort());
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(
      `127.0.0.1:${wantedPort}`,
      ServerCredentials.createSsl(
        Buffer.from((options.clientAuthority ?? authority).pem),
        [{ cert_chain: Buffer.from(certificatePem), private_key: Buffer.from(keyPem) }],
        true,
      ),
      (error, bound) => (error === null ? resolve(bound) : reject(error)),
    );
  });
  const hellos = (): Hello[] => received.flatMap((message) => (message.$case === "hello" ? [message.value] : []));
  const results = (commandId: string): CommandResult[] =>
    received.flatMap((message) =>
      message.$case === "result" && message.value.commandId === commandId ? [message.value] : [],
    );
  return {
    address: `127.0.0.1:${port}`,
    received,
    setWelcome: (change) => void (welcomeChange = change),
    confirmResults: (isOn) => void (isConfirming = isOn),
    say,
    sayBytes: (bytes) => void stream?.write(bytes),
    command: (command) => say({ $case: "command", value: command }),
    endSession: () => void stream?.end(),
    hellos,
    results,
    session: (count) => until(`session ${count}`, () => hellos()[count - 1]),
    result: (commandId, deadlineMs) => until(`the result of ${commandId}`, () => results(commandId)[0], deadlineMs),
    stop: () => server.forceShutdown(),
  };
}
