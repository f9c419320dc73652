/**
 * IIP: requests and responses over channels of one TCP connection, compatible with Go's truexf/iip.
 *
 *     import { Server } from 'ringloop'
 *     import { IipProtocol, IipRouter } from 'ringloop/iip'
 *
 *     const router = new IipRouter().handle('/echo', ({ data }) => data)
 *     await new Server(router, { address: ':9090', protocol: new IipProtocol() }).start()
 */
export type { BackendStatus } from './backend.js'
export {
  type BadEntry,
  type BalancedOptions,
  type BalancedRequest,
  type BalanceStrategy,
  IipBalancer,
  type IipBalancerOptions,
  type RetryOptions,
} from './balancer.js'
export type { IipBody } from './body.js'
export { IipClient, type IipClientOptions } from './client.js'
export type { RequestData, RequestOptions } from './client-call.js'
export type { ClientMiddleware, ClientRequest } from './client-middleware.js'
export { IipError, IipErrorCode, IipRemoteError } from './errors.js'
export { encodePacket, MAX_DATA, MAX_PATH, Status } from './frame.js'
export type { HealthProbe } from './health-probe.js'
export {
  type ChooseBackend,
  httpHeaders,
  IipHttpAdapter,
  type IipHttpAdapterOptions,
} from './http-adapter.js'
export type { IipChannel } from './own-channel.js'
export { IipProtocol, type IipProtocolOptions } from './protocol.js'
export type { IipConnection, IipOut, IipRequest } from './request.js'
export type { IipRequestTrace } from './request-trace.js'
export {
  IipFailure,
  type IipFailureOptions,
  IipRouter,
  type IipRouterOptions,
  type Middleware,
  type PathHandler,
  type PathOptions,
  type StreamHandler,
  type StreamOptions,
} from './router.js'
export { Count, type MeasureJson, type TimeUnit } from './statistics.js'
