/**
 * A page with live plots of a server's loops, served by the thread of the server and fed over a WebSocket:
 *
 *     server.use(console({ address: '127.0.0.1:1389' }))   then: open http://127.0.0.1:1389
 */
export { type ConsoleExtension, type ConsoleOptions, console } from './extension.js'
