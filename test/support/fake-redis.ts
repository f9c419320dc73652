/** Something that listens where a Redis should be: answers commands as a test says, in the protocol of Redis or not. */
import { once } from 'node:events'
import net from 'node:net'

export class FakeRedis {
  readonly #server: net.Server
  readonly #sockets: Set<net.Socket> = new Set()
  /** Connections so far. */
  connections = 0

  private constructor(answer: (command: string) => string | undefined) {
    this.#server = net.createServer((socket) => {
      this.connections++
      this.#sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => this.#sockets.delete(socket))
      socket.on('data', (chunk) => {
        for (const command of commandsIn(String(chunk))) {
          const said = answer(command)
          if (said !== undefined) socket.write(said)
        }
      })
    })
  }

  /** `answer` gets each command as its words; what it gives is written as it is. */
  static async start(answer: (command: string) => string | undefined): Promise<FakeRedis> {
    const fake = new FakeRedis(answer)
    fake.#server.listen(0, '127.0.0.1')
    await once(fake.#server, 'listening')
    return fake
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port
  }

  /** Connections that are open. */
  get open(): number {
    return this.#sockets.size
  }

  /** To every connection. */
  say(text: string): void {
    for (const socket of this.#sockets) socket.write(text)
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }
}

/** The commands of a chunk that has whole ones: arrays of bulk strings without line ends in them. */
function commandsIn(chunk: string): string[] {
  const lines = chunk.split('\r\n')
  const commands: string[] = []
  for (let at = 0; lines[at]?.startsWith('*') === true; ) {
    const end = at + 1 + 2 * Number(lines[at]!.slice(1))
    commands.push(
      lines
        .slice(at + 1, end)
        .filter((_line, i) => i % 2 === 1)
        .join(' '),
    )
    at = end
  }
  return commands
}

/** An answer to HELLO, as of protocol 3. */
export const hello = (version: string, mode = 'standalone', role = 'master'): string =>
  `%4\r\n${[
    ...['server', 'redis', 'version', version, 'mode', mode, 'role', role].map((text) => `+${text}\r\n`),
  ].join('')}`

/** Answers to everything else as a server that is content. */
export function contentRedis(command: string, greeting: string = hello('7.0.0')): string {
  const [name = '', channel] = command.split(' ')
  if (name === 'HELLO') return greeting
  if (!/subscribe$/i.test(name)) return '+OK\r\n'
  return `>3\r\n+${name.toLowerCase()}\r\n$${channel!.length}\r\n${channel}\r\n:0\r\n`
}
