/** What a balancer asks its servers regularly, and how. Keeps nothing; any thread. */
import { checkFunction, checkInteger, checkOptions, type OptionNames } from '../../index.js'
import { checkString } from './check-value.js'
import { bytesOf, pathBytes } from './client.js'

/** Asks each server regularly, whether there are requests or not. */
export interface HealthProbe {
  readonly path: string
  readonly data?: Uint8Array | string
  /** Milliseconds from one question to the next. Default 5 s. */
  readonly interval?: number
  /** Milliseconds for the answer. Default 1 s. */
  readonly timeout?: number
  /** Default: any answer is healthy. */
  readonly check?: (answer: Buffer) => boolean
}

const PROBE = {
  path: true,
  data: true,
  interval: true,
  timeout: true,
  check: true,
} as const satisfies OptionNames<HealthProbe>

/** With its defaults. */
export type CheckedProbe = HealthProbe & { readonly interval: number; readonly timeout: number }

/** A probe that can be sent, with its defaults. Throws `ERR_RINGLOOP_OPTION`. */
export function checkProbe(probe: HealthProbe): CheckedProbe {
  checkOptions('probe', probe, PROBE)
  const { path, data } = probe
  pathBytes(checkString('probe.path', path))
  if (data !== undefined && !(data instanceof Uint8Array)) checkString('probe.data', data)
  bytesOf(data)
  checkFunction('probe.check', probe.check)
  return {
    ...probe,
    interval: checkInteger('probe.interval', probe.interval, 5000, 1),
    timeout: checkInteger('probe.timeout', probe.timeout, 1000, 1),
  }
}
