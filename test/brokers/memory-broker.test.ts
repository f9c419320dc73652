/** The broker without an engine does what every broker must do. */
import { MemoryBroker, MemoryExchange } from '../../src/broker/memory-broker.js'
import { type Engine, type History, testBroker } from './broker.case.js'

class MemoryEngine implements Engine {
  /** One for each history that is asked for: they are settings of the exchange. */
  readonly #exchanges: Map<string, MemoryExchange> = new Map()
  #isAway = false

  exchange(history: History | undefined): MemoryExchange {
    const key = JSON.stringify(history ?? {})
    const made = this.#exchanges.get(key)
    if (made !== undefined) return made
    const exchange = new MemoryExchange({
      history,
    })
    this.#exchanges.set(key, exchange)
    if (this.#isAway) exchange.goAway()
    return exchange
  }

  async kill(): Promise<void> {
    this.#isAway = true
    for (const exchange of this.#exchanges.values()) {
      exchange.goAway()
      exchange.clear()
    }
  }

  async restart(): Promise<void> {
    this.#isAway = false
    for (const exchange of this.#exchanges.values()) exchange.comeBack()
  }

  async subscriptions(): Promise<number> {
    return [...this.#exchanges.values()].reduce((sum, { topics }) => sum + topics.size, 0)
  }

  async close(): Promise<void> {}
}

testBroker<MemoryEngine>({
  name: 'memory',
  startEngine: async () => new MemoryEngine(),
  create: (engine, { history }) => new MemoryBroker(engine.exchange(history)),
  hasHistory: true,
  hasTtl: true,
  canBeSilent: false,
})
