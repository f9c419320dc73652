/** ringloop on its epoll addon. */
import { serveEcho } from './ringloop-echo.js'

await serveEcho('native')
