import {
  type ClientDuplexStream,
  type ServiceDefinition,
  type handleBidiStreamingCall,
  makeGenericClientConstructor,
  type Client,
  type ChannelCredentials,
  type ClientOptions,
  type Metadata,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { ConnectRequest, ConnectResponse } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";

/** gRPC definition of `cloudpods.agent.v1.AgentGatewayService` (proto/cloudpods/agent/v1/agent_gateway.proto). */
export const agentGatewayService = {
  connect: {
    path: "/cloudpods.agent.v1.AgentGatewayService/Connect",
    requestStream: true,
    responseStream: true,
    requestSerialize: (message: ConnectRequest) => Buffer.from(ConnectRequest.encode(message).finish()),
    requestDeserialize: (bytes: Buffer) => ConnectRequest.decode(bytes),
    responseSerialize: (message: ConnectResponse) => Buffer.from(ConnectResponse.encode(message).finish()),
    responseDeserialize: (bytes: Buffer) => ConnectResponse.decode(bytes),
  },
} as const satisfies ServiceDefinition;

/** What the control plane implements. */
export interface AgentGatewayServer extends UntypedServiceImplementation {
  connect: handleBidiStreamingCall<ConnectRequest, ConnectResponse>;
}

/** What the agent calls. */
export interface AgentGatewayClient extends Client {
  connect(metadata?: Metadata): ClientDuplexStream<ConnectRequest, ConnectResponse>;
}

const GenericClient = makeGenericClientConstructor(agentGatewayService, "AgentGatewayService");

/** Makes a client; nothing is dialled before the first call. */
export function createAgentGatewayClient(
  address: string,
  credentials: ChannelCredentials,
  options: ClientOptions,
): AgentGatewayClient {
  // grpc-js builds the methods from the definition at run time and cannot type them.
  return new GenericClient(address, credentials, options) as unknown as AgentGatewayClient;
}
