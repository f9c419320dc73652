import { NetPoller } from '../src/loop/poller/net-poller.js'
import { testPoller } from './poller.case.js'

testPoller('net', (sink) => new NetPoller(sink))
