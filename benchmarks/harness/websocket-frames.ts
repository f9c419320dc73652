/** WebSocket as the suites speak it: the upgrade, a client's masked frames and a server's plain ones (RFC 6455). */
import type { Hello } from './suite.js'

export const UPGRADE: Hello = {
  send: Buffer.from(
    [
      'GET /echo HTTP/1.1',
      'Host: 127.0.0.1',
      'Upgrade: websocket',
      'Connection: Upgrade',
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      'Sec-WebSocket-Version: 13',
      '\r\n',
    ].join('\r\n'),
  ),
  until: Buffer.from('\r\n\r\n'),
}

const KEY = [0x37, 0xfa, 0x21, 0x3d]
export const TEXT = 0x81
export const BINARY = 0x82
const MASKED = 0x80

/** A frame's length in the header, with the mask bit where it is a client's. */
function lengthBytes(length: number, maskBit: number): number[] {
  if (length < 126) return [length | maskBit]
  if (length <= 0xffff) return [126 | maskBit, length >>> 8, length & 0xff]
  return [
    127 | maskBit,
    0,
    0,
    0,
    0,
    length >>> 24,
    (length >>> 16) & 0xff,
    (length >>> 8) & 0xff,
    length & 0xff,
  ]
}

export function maskedFrame(first: number, payload: Buffer): Buffer {
  const header = Buffer.from([first, ...lengthBytes(payload.length, MASKED), ...KEY])
  return Buffer.concat([header, payload.map((byte, i) => byte ^ KEY[i & 3]!)])
}

export function plainFrame(first: number, payload: Buffer): Buffer {
  return Buffer.concat([Buffer.from([first, ...lengthBytes(payload.length, 0)]), payload])
}
