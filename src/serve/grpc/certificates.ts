/** Certificates of the gRPC server that can be changed while it runs. Reads no files; security/ does. */
import { experimental, type ServerCredentials } from "@grpc/grpc-js";
import type { TlsMaterial } from "../security/tls.ts";

export interface ServerCertificates {
  readonly credentials: ServerCredentials;
  /** Used for new connections; existing ones keep theirs. */
  set(material: TlsMaterial): void;
}

/** If started with a client CA, clients must show a certificate as long as the server runs. */
export function serverCertificates(material: TlsMaterial): ServerCertificates {
  const own = new Changing<experimental.IdentityCertificateUpdate>();
  const clients = new Changing<experimental.CaCertificateUpdate>();
  const provider: experimental.CertificateProvider = {
    addIdentityCertificateListener: (listener) => own.add(listener),
    removeIdentityCertificateListener: (listener) => own.remove(listener),
    addCaCertificateListener: (listener) => clients.add(listener),
    removeCaCertificateListener: (listener) => clients.remove(listener),
  };
  const asked = material.clientCa !== undefined;
  const set = ({ cert, key, clientCa }: TlsMaterial): void => {
    if (clientCa) clients.set({ caCertificate: clientCa });
    own.set({ certificate: cert, privateKey: key });
  };
  set(material);
  return {
    credentials: experimental.createCertificateProviderServerCredentials(provider, asked ? provider : null, asked),
    set,
  };
}

/** A value and its listeners. */
class Changing<T> {
  private value: T | null = null;
  private readonly listeners = new Set<(value: T | null) => void>();

  add(listener: (value: T | null) => void): void {
    this.listeners.add(listener);
    // Deferred: grpc-js requests the value before it attaches its listener.
    queueMicrotask(() => listener(this.value));
  }

  remove(listener: (value: T | null) => void): void {
    this.listeners.delete(listener);
  }

  set(value: T): void {
    this.value = value;
    for (const listener of this.listeners) listener(value);
  }
}
