/**
 * Finds and loads the native addon, once per thread. Its calls take the number of a poller of this thread; system
 * errors come back as negative errno numbers. See native/addon.c.
 */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { TlsFailureNumber } from '../../tls-failure.js'
import { COUNTED, LINGER_MS, OUT_STRIDE, type TcpEndpoint, TLS_FAILED, TLS_TRUNCATED } from './poller.js'

export interface CreatedPoller {
  /** Its number, or a negative errno. */
  readonly poller: number
  readonly mailbox: number
  readonly inSlab: ArrayBuffer
  readonly inRecords: ArrayBuffer
  readonly outSlab: ArrayBuffer
  readonly outRecords: ArrayBuffer
}

/** What is known of a slot's TLS. */
export interface NativeSession {
  readonly protocol: string
  readonly cipher: string
  readonly alpnProtocol: string | undefined
  readonly servername: string | undefined
  /** The peer's, as DER. */
  readonly certificate: Buffer | undefined
  /** OpenSSL's number and words for what is wrong with that; 0 where nothing is, or there is none. */
  readonly verifyError: number
  readonly verifyText: string
  readonly resumed: 0 | 1
  /** Why it failed, 0 where it has not: a number of tls-failure.ts, and OpenSSL's words. */
  readonly failure: number
  readonly failureText: string | undefined
}

export interface NativeAddon {
  /** What these sources have to agree with. */
  readonly constants: Readonly<Record<string, number>>
  create(onBatch: (count: number) => void, maxLingering: number, mayRing: boolean): CreatedPoller
  destroy(poller: number): void
  setRef(poller: number, on: boolean): void
  listenTcp(
    poller: number,
    ip: string,
    port: number,
    backlog: number,
    noDelay: boolean,
    keepAliveSeconds: number,
    reusePort: boolean,
    receiveBuffer: number,
    park: boolean,
  ): number
  listenUnix(poller: number, path: string, backlog: number, park: boolean): number
  listenerPort(poller: number, listener: number): number
  setAccepting(poller: number, listener: number, on: boolean): number
  closeListener(poller: number, listener: number): number
  parkMailbox(poller: number, park: boolean): void
  connectTcp(poller: number, ip: string, port: number, noDelay: boolean, keepAliveSeconds: number): number
  connectUnix(poller: number, path: string): number
  adopt(poller: number, slot: number): number
  handOff(poller: number, slot: number, mailbox: number): number
  takeDescriptor(poller: number, slot: number): number
  flush(poller: number, count: number): number
  write(poller: number, slot: number, bytes: Uint8Array, start: number, end: number): number
  writeBehind(
    poller: number,
    slot: number,
    offset: number,
    head: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): number
  setReading(poller: number, slot: number, on: boolean): number
  unmask(poller: number, slot: number): number
  shutdownWrite(poller: number, slot: number): number
  close(poller: number, slot: number, linger: boolean): number
  reset(poller: number, slot: number): number
  expireLingering(poller: number): number
  peerAddr(poller: number, slot: number): TcpEndpoint | undefined
  localAddr(poller: number, slot: number): TcpEndpoint | undefined
  openGroup(): number
  joinGroup(poller: number, group: number, loop: number): number
  rest(poller: number): void
  members(poller: number, into: Int32Array): number
  post(poller: number, to: Int32Array, count: number, bytes: Uint8Array, start: number, end: number): number
  takeLetter(poller: number): Buffer | undefined
  /** A TLS context, or why there is no TLS here: there must be the OpenSSL 3 of Node. */
  createContext(server: boolean): number | string
  dropContext(context: number): void
  /** These three give what is wrong, in OpenSSL's words. */
  setContext(context: number, what: number, bytes: Uint8Array): string | undefined
  setContextNumber(context: number, what: number, value: number): string | undefined
  sealContext(context: number): string | undefined
  addContextName(context: number, name: string, other: number): number
  useTls(poller: number, context: number, maxHandshakes: number): number
  secure(poller: number, slot: number, context: number, name: string): number
  /** The slot whose handshake has been under way for longest, and for at least `ageMs`, or -1. */
  lateHandshake(poller: number, ageMs: number): number
  sessionOf(poller: number, slot: number): NativeSession | undefined
  /** What OpenSSL says for the reason in a record of the kind `REFUSED`. */
  reasonText(reason: number): string | undefined
}

/** Numbers per record of a batch: slot, offset, length or -errno, kind. */
export const RECORD_INTS = 4

/** Numbers per member of a group of mailboxes: its mailbox, its loop, whether it takes letters. */
export const MEMBER_INTS = 3

/** What a record says happened. */
export const RecordKind = {
  READ: 0,
  WRITABLE: 1,
  END: 2,
  ERROR: 3,
  ACCEPT: 4,
  CONNECT: 5,
  HANGUP: 6,
  ACCEPT_ERROR: 7,
  LOST: 8,
  LEFT: 9,
  POST: 10,
  HANDSHAKE: 11,
  REFUSED: 12,
  SECURED: 13,
} as const

/** What a TLS context is given as bytes. */
export const ContextBytes = {
  PASSPHRASE: 0,
  CERT: 1,
  KEY: 2,
  CA: 3,
  CIPHERS: 4,
  CIPHER_SUITES: 5,
  GROUPS: 6,
  SIGALGS: 7,
  ALPN: 8,
  TICKETS: 9,
  SESSION_CONTEXT: 10,
} as const

/** And as a number. */
export const ContextNumber = {
  MIN_VERSION: 0,
  MAX_VERSION: 1,
  TIMEOUT: 2,
  VERIFY: 3,
  CIPHER_ORDER: 4,
} as const

/** Of the peer's certificate. */
export const Verify = { NONE: 0, OPTIONAL: 1, REQUIRED: 2 } as const

/** Bytes of the keys that tickets are encrypted with. */
export const TICKET_KEYS = 80

/**
 * What is written in C as well, by the names that it has there (native/poller.h, native/addon.c). They are compared when
 * the addon is loaded: one that was built from other sources would be understood wrongly.
 */
const CONSTANTS: Readonly<Record<string, number>> = {
  /** Raised whenever the arguments or answers of a call change. */
  INTERFACE: 6,
  IN_SLAB: 216 * 1024,
  OUT_SLAB: 256 * 1024,
  RECORDS_MAX: 1024,
  OUT_RECORDS_MAX: 4096,
  RECORD_INTS,
  OUT_RECORD_INTS: OUT_STRIDE,
  LINGER_MS,
  COUNTED,
  RECORD_READ: RecordKind.READ,
  RECORD_WRITABLE: RecordKind.WRITABLE,
  RECORD_END: RecordKind.END,
  RECORD_ERROR: RecordKind.ERROR,
  RECORD_ACCEPT: RecordKind.ACCEPT,
  RECORD_CONNECT: RecordKind.CONNECT,
  RECORD_HANGUP: RecordKind.HANGUP,
  RECORD_ACCEPT_ERROR: RecordKind.ACCEPT_ERROR,
  RECORD_LOST: RecordKind.LOST,
  RECORD_LEFT: RecordKind.LEFT,
  RECORD_POST: RecordKind.POST,
  RECORD_HANDSHAKE: RecordKind.HANDSHAKE,
  RECORD_REFUSED: RecordKind.REFUSED,
  RECORD_SECURED: RecordKind.SECURED,
  MEMBER_INTS,
  ERROR_TLS: TLS_FAILED,
  ERROR_TRUNCATED: TLS_TRUNCATED,
  ...named('TLS_', ContextBytes),
  ...named('TLS_', ContextNumber),
  ...named('TLS_VERIFY_', Verify),
  TLS_TICKET_KEYS: TICKET_KEYS,
  ...named('TLS_', TlsFailureNumber),
}

function named(prefix: string, numbers: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(numbers).map(([name, number]) => [`${prefix}${name}`, number]))
}

const NAME = 'ringloop.node'

/**
 * Built from source, or else a prebuilt one; for that the C library matters on Linux. The variable
 * RINGLOOP_NATIVE_ADDON names another file, for instance one built under a sanitizer.
 */
function findAddon(): string | undefined {
  const given = process.env.RINGLOOP_NATIVE_ADDON
  if (given !== undefined && given !== '') return given
  const native = path.join(packageRoot(), 'native')
  const built = path.join(native, 'build', 'Release', NAME)
  if (existsSync(built)) return built
  const libc = isGlibc() ? '' : '-musl'
  const prebuilt = path.join(native, 'prebuilds', `${process.platform}-${process.arch}${libc}`, NAME)
  return existsSync(prebuilt) ? prebuilt : undefined
}

function packageRoot(): string {
  let folder = path.dirname(fileURLToPath(import.meta.url))
  while (!existsSync(path.join(folder, 'package.json')) && folder !== path.dirname(folder))
    folder = path.dirname(folder)
  return folder
}

function isGlibc(): boolean {
  const report = process.report?.getReport() as unknown as
    | { header?: { glibcVersionRuntime?: string } }
    | undefined
  return report?.header?.glibcVersionRuntime !== undefined
}

let loaded: NativeAddon | undefined
let failure: string | undefined

/** The addon, or why there is none. */
export function loadNativeAddon(): NativeAddon | string {
  if (loaded !== undefined) return loaded
  if (failure !== undefined) return failure
  if (process.platform !== 'linux') return `the native poller is for Linux, this is ${process.platform}`
  // Their symbols of libuv may be missing only when they are called: too late to fall back.
  if (process.versions.bun !== undefined || process.versions.deno !== undefined) {
    return 'the native poller needs Node’s libuv'
  }
  const file = findAddon()
  if (file === undefined) {
    failure = 'there is no native addon for this machine (the README says how to build it)'
    return failure
  }
  const addon = requireAddon(file)
  if (typeof addon === 'string') failure = addon
  else loaded = addon
  return addon
}

function requireAddon(file: string): NativeAddon | string {
  try {
    const addon = createRequire(import.meta.url)(file) as NativeAddon
    return disagreement(addon) ?? addon
  } catch (error) {
    return `the native addon cannot be loaded: ${(error as Error).message}`
  }
}

/** Why what was loaded is not the addon of these sources. */
function disagreement({ constants }: Partial<NativeAddon>): string | undefined {
  for (const [name, ours] of Object.entries(CONSTANTS)) {
    const its = constants?.[name]
    if (its === ours) continue
    return `the native addon was built from other sources (${name} is ${its} there and ${ours} here): run npm run build`
  }
  return undefined
}
