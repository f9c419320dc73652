/** ringloop on its epoll addon, with views of the loop's memory instead of copies. */
import { serveEcho } from './ringloop-echo.js'

await serveEcho('native', true)
