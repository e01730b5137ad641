/**
 * Certificates and keys of the service, read and checked before anything listens. Owns no socket: HTTP and gRPC take
 * the bytes.
 */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";
import type { SecuritySettings } from "../../config/schema/serve-http.ts";
import { ConfigError } from "../../core/errors.ts";

export interface TlsMaterial {
  /** PEM. */
  readonly cert: Buffer;
  readonly key: Buffer;
  /** If given, clients must present a certificate signed by one of these. */
  readonly clientCa: Buffer | undefined;
}

/** Undefined without TLS. Throws ConfigError that names the setting and the file. */
export function readTls({ cert, key, clientCa }: SecuritySettings["tls"]): TlsMaterial | undefined {
  if (cert === "" && key === "" && clientCa === "") return undefined;
  if (cert === "" || key === "")
    throw new ConfigError("security.tls needs both cert and key.", {
      advice: "clientCa alone cannot work: client certificates are part of TLS.",
    });
  const material = {
    cert: read("cert", cert),
    key: read("key", key),
    clientCa: clientCa === "" ? undefined : read("clientCa", clientCa),
  };
  const leaf = certificateIn(material.cert, "cert", cert);
  if (material.clientCa) certificateIn(material.clientCa, "clientCa", clientCa);
  if (Date.parse(leaf.validTo) < Date.now())
    throw new ConfigError(`security.tls.cert: ${cert} expired on ${leaf.validTo}.`);
  try {
    createSecureContext({ cert: material.cert, key: material.key, ca: material.clientCa });
  } catch (cause) {
    throw new ConfigError(`security.tls: ${key} is not the key of ${cert}, or is damaged.`, { cause });
  }
  return material;
}

function read(setting: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new ConfigError(`security.tls.${setting}: ${file} cannot be read.`, { cause });
  }
}

function certificateIn(pem: Buffer, setting: string, file: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (cause) {
    throw new ConfigError(`security.tls.${setting}: ${file} contains no certificate in PEM format.`, { cause });
  }
}
