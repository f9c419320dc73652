/** WebSocket topics in Bun, as `examples/websocket-topics.ts` has them. */
import { serveBun } from './bun-websockets.js'

serveBun((socket, data, server) => {
  const [command, name = '', ...words] = String(data).split(' ')
  if (command === 'sub') socket.subscribe(name)
  else if (command === 'unsub') socket.unsubscribe(name)
  else if (command === 'pub') server.publish(name, `${name} ${words.join(' ')}`)
})
