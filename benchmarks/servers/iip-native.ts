/** IIP on the epoll addon. */
import { serveIip } from './iip-ringloop.js'

await serveIip('native')
