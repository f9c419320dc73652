/** Why TLS fails with a peer: the words that metrics and the log have for it, and the numbers of native/tls.h. Pure. */

/**
 * `not-tls` the peer speaks something else · `old-version` no version that both have · `no-cipher` no cipher that both
 * have · `certificate` the peer's is missing or not trusted · `no-protocol` no protocol of ALPN that both have · `alert`
 * the peer refused · `broken` what came is not as it should be · `renegotiation` the peer wanted one · `flood` it makes us
 * answer and reads nothing, or wants new keys all the time · `left` it left in the handshake · `late` the handshake took
 * too long · `too-many` handshakes were under way.
 */
export type TlsFailure =
  | 'not-tls'
  | 'old-version'
  | 'no-cipher'
  | 'certificate'
  | 'no-protocol'
  | 'alert'
  | 'broken'
  | 'renegotiation'
  | 'flood'
  | 'left'
  | 'late'
  | 'too-many'

/** In the order of the shared counters of failures; the first has the number 1. */
export const TLS_FAILURES: readonly TlsFailure[] = [
  'not-tls',
  'old-version',
  'no-cipher',
  'certificate',
  'no-protocol',
  'alert',
  'broken',
  'renegotiation',
  'flood',
  'left',
  'late',
  'too-many',
]

/** By the names that they have in C: `NOT_TLS` is 1. */
export const TlsFailureNumber: Readonly<Record<string, number>> = Object.fromEntries(
  TLS_FAILURES.map((failure, i) => [failure.toUpperCase().replace('-', '_'), i + 1]),
)

/** The failure with the number of C's. */
export function tlsFailure(number: number): TlsFailure {
  return TLS_FAILURES[number - 1] ?? 'broken'
}
