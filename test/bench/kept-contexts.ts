import { syncBuiltinESMExports } from "node:module";
import tls, { type SecureContext, type SecureContextOptions } from "node:tls";

/**
 * Makes the TLS context of a certificate once and not for each attempt: reading keys is a third of the work of an attempt,
 * which an agent of its own hardly notices and a thousand of them in one process do.
 */
export function keepSecureContexts(): void {
  const kept = new Map<string, SecureContext>();
  tls.createSecureContext = new Proxy(tls.createSecureContext, {
    apply(create, self, [options]: [SecureContextOptions?]) {
      const { cert, ciphers = "" } = options ?? {};
      if (cert === undefined) return Reflect.apply(create, self, [options]);
      const name = `${ciphers} ${String(cert)}`;
      const context = kept.get(name) ?? Reflect.apply(create, self, [options]);
      kept.set(name, context);
      return context;
    },
  });
  syncBuiltinESMExports();
}
