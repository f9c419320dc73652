/** The extension that serves the page. It belongs to the thread of the server. */
import {
  type Address,
  type BoundAddress,
  checkOptions,
  type Endpoint,
  ErrorCode,
  type ExtendedServer,
  type Extension,
  type OptionNames,
  parseAddress,
  RingloopError,
} from '../../index.js'
import { ConsoleServer } from './console-server.js'
import { readPage } from './page-files.js'

export interface ConsoleOptions {
  /**
   * Where the page is. Without a host that is the loopback interface, unlike the server's own address: there is no
   * password. Default `'127.0.0.1:1389'`.
   */
  readonly address?: Address
}

const OPTIONS = { address: true } as const satisfies OptionNames<ConsoleOptions>

/** What `console()` makes. */
export interface ConsoleExtension extends Extension {
  /** Where the page is, with the port that the system chose. Throws `ERR_RINGLOOP_STATE` before the server is started. */
  readonly address: BoundAddress
}

/**
 * A page with live plots, served by the thread of the server from the end of `start` to the end of `stop`:
 * `server.use(console())`. One for each server. Throws `ERR_RINGLOOP_OPTION`.
 */
export function console(options: ConsoleOptions = {}): ConsoleExtension {
  return new Console(options)
}

class Console implements ConsoleExtension {
  readonly name = 'console'
  readonly watchLoops = true
  readonly #at: Endpoint
  #server: ConsoleServer | undefined

  constructor(options: ConsoleOptions) {
    checkOptions('console', options, OPTIONS)
    this.#at = parseAddress(options.address ?? ':1389', '127.0.0.1')
  }

  get address(): BoundAddress {
    if (this.#server !== undefined) return this.#server.address
    throw new RingloopError(ErrorCode.STATE, 'the console is not served yet: start the server')
  }

  async start(server: ExtendedServer): Promise<void> {
    if (this.#server !== undefined) {
      throw new RingloopError(ErrorCode.STATE, 'console() is for one server: call it for each')
    }
    this.#server = new ConsoleServer(server, this.#at, await readPage())
    await this.#server.start()
  }

  async stop(): Promise<void> {
    await this.#server?.stop()
  }
}
