import { experimental, type ServerCredentials } from "@grpc/grpc-js";

/** A server certificate with its key, and the authorities whose clients are let in; all PEM. */
export interface GatewayTls {
  readonly cert: string;
  readonly key: string;
  /** One PEM block for each authority that is not retired. */
  readonly ca: readonly string[];
}

/** Credentials whose certificate can be replaced while the server runs. */
export interface RenewableCredentials {
  readonly credentials: ServerCredentials;
  /** New connections use it; existing ones go on. */
  update(tls: GatewayTls): void;
}

type Listener<T> = (update: T | null) => void;

/** Mutual TLS: a client without a certificate of ours does not get beyond the handshake. */
export function renewableCredentials(initial: GatewayTls): RenewableCredentials {
  let tls = initial;
  const identityListeners = new Set<Listener<experimental.IdentityCertificateUpdate>>();
  const caListeners = new Set<Listener<experimental.CaCertificateUpdate>>();
  const identity = () => ({ certificate: Buffer.from(tls.cert), privateKey: Buffer.from(tls.key) });
  const authorities = () => ({ caCertificate: Buffer.from(tls.ca.join("")) });
  const provider: experimental.CertificateProvider = {
    addIdentityCertificateListener(listener) {
      identityListeners.add(listener);
      // grpc-js adds its own watcher after this call and misses what comes within it.
      queueMicrotask(() => listener(identity()));
    },
    removeIdentityCertificateListener: (listener) => void identityListeners.delete(listener),
    addCaCertificateListener(listener) {
      caListeners.add(listener);
      queueMicrotask(() => listener(authorities()));
    },
    removeCaCertificateListener: (listener) => void caListeners.delete(listener),
  };
  return {
    credentials: experimental.createCertificateProviderServerCredentials(provider, provider, true),
    update(next) {
      tls = next;
      for (const listener of caListeners) listener(authorities());
      for (const listener of identityListeners) listener(identity());
    },
  };
}
