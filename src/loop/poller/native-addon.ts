/**
 * Finds and loads the native addon, once per thread. Its calls take the number of a poller of this thread; system
 * errors come back as negative errno numbers. See native/addon.c.
 */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

export interface CreatedPoller {
  /** Its number, or a negative errno. */
  readonly poller: number
  readonly mailbox: number
  readonly inSlab: ArrayBuffer
  readonly inRecords: ArrayBuffer
  readonly outSlab: ArrayBuffer
  readonly outRecords: ArrayBuffer
}

export interface NativeAddon {
  create(onBatch: (count: number) => void): CreatedPoller
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
  release(poller: number, slot: number): number
  flush(poller: number, count: number): number
  write(poller: number, slot: number, bytes: Uint8Array, start: number, end: number): number
  setReading(poller: number, slot: number, on: boolean): number
  shutdownWrite(poller: number, slot: number): number
  close(poller: number, slot: number, linger: boolean): number
  expireLingering(poller: number): number
  peerAddr(poller: number, slot: number): string
  localAddr(poller: number, slot: number): string
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
  try {
    loaded = createRequire(import.meta.url)(file) as NativeAddon
    return loaded
  } catch (error) {
    failure = `the native addon cannot be loaded: ${(error as Error).message}`
    return failure
  }
}
