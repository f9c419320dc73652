/** Every entry point can be imported, and what it gives is typed. */
import * as ringloop from 'ringloop'
import * as consolePage from 'ringloop/console'
import * as http from 'ringloop/http'
import * as iip from 'ringloop/iip'
import * as metrics from 'ringloop/metrics'
import * as nats from 'ringloop/nats'
import * as protobuf from 'ringloop/protobuf'
import * as redis from 'ringloop/redis'
import * as websocket from 'ringloop/websocket'

/** Compiles where nothing that the module exports is `any`. */
type Typed<Module> = { [K in keyof Module]: 0 extends 1 & Module[K] ? never : unknown }
declare function typed<Module extends Typed<Module>>(module: Module): void

typed(ringloop)
typed(consolePage)
typed(http)
typed(iip)
typed(metrics)
typed(nats)
typed(protobuf)
typed(redis)
typed(websocket)

// @ts-expect-error
typed({ untyped: JSON.parse('5') })
