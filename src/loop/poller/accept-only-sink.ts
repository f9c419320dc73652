/** The sink of a poller where only accepts can happen, because its sockets are parked. */
import assert from 'node:assert'
import type { PollerSink } from './poller.js'

export abstract class AcceptOnlySink implements PollerSink {
  handleBatchStart(): void {}
  handleBatchEnd(): void {}
  admit(): boolean {
    return assert.fail('a parked socket has no handshake')
  }
  handleSecured(): void {
    assert.fail('a parked socket has no handshake')
  }
  handleTlsFailure(): void {
    assert.fail('a parked socket has no handshake')
  }
  abstract handleAccept(slot: number, listener: number): void
  abstract handleAcceptError(listener: number, errno: number): void
  abstract handleFileLeft(error: NodeJS.ErrnoException): void
  abstract handleLost(listener: number): void
  handleConnect(): void {
    assert.fail('a parked socket does not connect')
  }
  handleRead(): void {
    assert.fail('a parked socket is not read')
  }
  handleEnd(): void {
    assert.fail('a parked socket is not read')
  }
  handleError(): void {
    assert.fail('a parked socket is not read')
  }
  handleHangup(): void {
    assert.fail('a parked socket is not watched')
  }
  handleLeft(): void {
    assert.fail('a parked socket is not watched')
  }
  handleWritable(): void {
    assert.fail('a parked socket is not written')
  }
}
