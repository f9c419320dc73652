/** What a client does to a server to take the loop for itself: the list, shared by the runner and the flooding program. */

export type Service = 'lines' | 'bytes' | 'http' | 'websocket'

export interface Flood {
  readonly name: string
  /** What the server speaks, and so what the witness asks. */
  readonly service: Service
  readonly connections: number
}

export const FLOODS: readonly Flood[] = [
  { name: 'nothing', service: 'lines', connections: 0 },
  { name: 'lines', service: 'lines', connections: 20 },
  { name: 'promises', service: 'lines', connections: 20 },
  { name: 'leavers', service: 'lines', connections: 1 },
  { name: 'drained', service: 'lines', connections: 1 },
  { name: 'writes-64k', service: 'bytes', connections: 1 },
  { name: 'stream-1', service: 'http', connections: 1 },
  { name: 'stream-1k', service: 'http', connections: 1 },
  { name: 'stream-64k', service: 'http', connections: 1 },
  { name: 'pipelined', service: 'http', connections: 1 },
  { name: 'upload', service: 'http', connections: 1 },
  { name: 'chunks', service: 'http', connections: 20 },
  { name: 'inflate-64k', service: 'websocket', connections: 20 },
  { name: 'inflate-1', service: 'websocket', connections: 20 },
  { name: 'pings', service: 'websocket', connections: 20 },
  { name: 'empty-parts', service: 'websocket', connections: 20 },
]

export function floodCalled(name: string): Flood {
  const flood = FLOODS.find((each) => each.name === name)
  if (flood === undefined) {
    throw new Error(`there is no flood '${name}' but ${FLOODS.map((each) => each.name).join(', ')}`)
  }
  return flood
}
