/** The options of a {@link NatsBroker}; settings.ts checks them. Types of the client of NATS must not show here. */
import type { ConnectionOptions as TlsConnectOptions } from 'node:tls'

export interface NatsBrokerOptions {
  /**
   * Where NATS is: one URL, or several servers of one cluster, which are tried in any order: `'nats://10.0.0.5:4222'`,
   * `'10.0.0.5'`, `'tls://user:secret@nats.example.com'`, `'nats://token@10.0.0.5'`. The servers that these know of are tried too.
   * Default `'nats://127.0.0.1:4222'`.
   */
  readonly servers?: string | readonly string[]
  /** Begins every subject. Servers hear each other where it is the same. Default `'ringloop'`. */
  readonly prefix?: string
  /** Milliseconds within which a server must have taken the connection; each is tried once at start. Default 5 s. */
  readonly connectTimeout?: number
  /** Milliseconds between pings. A server that has left two unanswered is given up at the third. Default 10 s. */
  readonly pingInterval?: number
  /** Milliseconds of the first pause after the connection was lost; it doubles with each failure. Default 100. */
  readonly minReconnectDelay?: number
  /** Default 5 s. */
  readonly maxReconnectDelay?: number
  /** What NATS shows of this connection. Default `'ringloop'`. */
  readonly name?: string
  readonly user?: string
  readonly pass?: string
  readonly token?: string
  /** For keys and credentials: what `nkeyAuthenticator`, `credsAuthenticator` and others of the client of NATS make. */
  readonly authenticator?: (nonce?: string) => unknown
  /** Speak TLS: the options of `tls.connect`, or `true` for its defaults. Default: if the server asks for it. */
  readonly tls?: TlsConnectOptions | true
}
