/** Bytes that come in pieces, as a protocol sees them. */

/** As much of a protocol as is needed: those of the sources and those of the package are different types. */
interface Unpacker<C, R, P> {
  unPacket(c: C, buffer: R): P | undefined
}

/**
 * Writes `bytes` to the ring piece by piece, and gives each packet as it comes. The pieces end at `cuts`, any numbers in
 * any order. What the protocol throws passes through.
 */
export function* packetsOf<C, R extends { write(bytes: Uint8Array): unknown }, P>(
  protocol: Unpacker<C, R, P>,
  c: C,
  ring: R,
  bytes: Uint8Array,
  cuts: readonly number[],
): Generator<P> {
  const ends = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort((a, b) => a - b)
  let from = 0
  for (const to of ends) {
    ring.write(bytes.subarray(from, to))
    from = to
    for (let p = protocol.unPacket(c, ring); p !== undefined; p = protocol.unPacket(c, ring)) yield p
  }
}
