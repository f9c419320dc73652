/** What a connection over TLS knows of it, and the names of what is wrong with a certificate. Pure. */
import { X509Certificate } from 'node:crypto'

/** As `c.tls`. It is made when it is asked for, and kept. */
export interface TlsInfo {
  /** `TLSv1.3` or `TLSv1.2`, and older ones where `minVersion` allows them. */
  readonly protocol: string
  /** OpenSSL's name, as `TLS_AES_256_GCM_SHA384`. */
  readonly cipher: string
  /** What both have chosen of `ALPNProtocols`. */
  readonly alpnProtocol: string | undefined
  /** Whom the client wants to talk to (SNI). */
  readonly servername: string | undefined
  /** The peer has shown a certificate, and it is trusted. */
  readonly authorized: boolean
  /** Why it is not, as Node says it: `DEPTH_ZERO_SELF_SIGNED_CERT`. */
  readonly authorizationError: string | undefined
  /** The peer's own. A server gets one only with `requestCert`. */
  readonly peerCertificate: X509Certificate | undefined
  /** A session of before was resumed. */
  readonly resumed: boolean
}

/** OpenSSL's numbers (x509_vfy.h) with the names that Node gives them. */
const VERIFY_ERRORS: ReadonlyMap<number, string> = new Map([
  [2, 'UNABLE_TO_GET_ISSUER_CERT'],
  [3, 'UNABLE_TO_GET_CRL'],
  [4, 'UNABLE_TO_DECRYPT_CERT_SIGNATURE'],
  [5, 'UNABLE_TO_DECRYPT_CRL_SIGNATURE'],
  [6, 'UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY'],
  [7, 'CERT_SIGNATURE_FAILURE'],
  [8, 'CRL_SIGNATURE_FAILURE'],
  [9, 'CERT_NOT_YET_VALID'],
  [10, 'CERT_HAS_EXPIRED'],
  [11, 'CRL_NOT_YET_VALID'],
  [12, 'CRL_HAS_EXPIRED'],
  [13, 'ERROR_IN_CERT_NOT_BEFORE_FIELD'],
  [14, 'ERROR_IN_CERT_NOT_AFTER_FIELD'],
  [15, 'ERROR_IN_CRL_LAST_UPDATE_FIELD'],
  [16, 'ERROR_IN_CRL_NEXT_UPDATE_FIELD'],
  [17, 'OUT_OF_MEM'],
  [18, 'DEPTH_ZERO_SELF_SIGNED_CERT'],
  [19, 'SELF_SIGNED_CERT_IN_CHAIN'],
  [20, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY'],
  [21, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
  [22, 'CERT_CHAIN_TOO_LONG'],
  [23, 'CERT_REVOKED'],
  [25, 'PATH_LENGTH_EXCEEDED'],
  [26, 'INVALID_PURPOSE'],
  [27, 'CERT_UNTRUSTED'],
  [28, 'CERT_REJECTED'],
  [62, 'ERR_TLS_CERT_ALTNAME_INVALID'],
  [64, 'ERR_TLS_CERT_ALTNAME_INVALID'],
  [79, 'INVALID_CA'],
])

/** `undefined` where nothing is wrong. */
export function verifyErrorName(number: number): string | undefined {
  return number === 0 ? undefined : (VERIFY_ERRORS.get(number) ?? 'UNSPECIFIED')
}

/** What a poller knows; of the certificate the DER. */
export interface TlsFacts extends Omit<TlsInfo, 'authorized' | 'peerCertificate'> {
  readonly certificate: Uint8Array | undefined
}

export function tlsInfo({ certificate, ...facts }: TlsFacts): TlsInfo {
  return {
    ...facts,
    authorized: certificate !== undefined && facts.authorizationError === undefined,
    peerCertificate: certificate === undefined ? undefined : new X509Certificate(certificate),
  }
}
