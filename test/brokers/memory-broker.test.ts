/** The broker without an engine does what all do. */
import { MemoryBroker, MemoryExchange } from '../../src/broker/memory-broker.js'
import { type BrokerSetting, type Engine, testBroker } from './broker.case.js'

class ExchangeEngine implements Engine {
  #exchange: MemoryExchange | undefined

  /** The first broker says what is kept. */
  exchange({ history }: BrokerSetting): MemoryExchange {
    this.#exchange ??= new MemoryExchange(history === undefined ? {} : { history })
    return this.#exchange
  }

  async kill(): Promise<void> {
    this.#exchange?.goAway('it was killed')
    this.#exchange?.clear()
  }

  async restart(): Promise<void> {
    this.#exchange?.comeBack()
  }

  async subscriptions(): Promise<number> {
    return this.#exchange?.topics.size ?? 0
  }

  async close(): Promise<void> {}
}

testBroker({
  name: 'memory',
  startEngine: async () => new ExchangeEngine(),
  create: (engine, setting) => new MemoryBroker(engine.exchange(setting)),
  hasHistory: true,
  canBeSilent: false,
})
