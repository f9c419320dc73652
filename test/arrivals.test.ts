/** What has come from other threads takes turns with the rest of a loop. */
import { expect, it } from 'vitest'
import { Arrivals } from '../src/threads/arrivals.js'
import { rounds } from './support/wait.js'

it('what takes long goes one in a round, and all of it in order', async () => {
  const taken: number[] = []
  const arrivals = new Arrivals<number>((message) => {
    taken.push(message)
    for (const end = performance.now() + 2; performance.now() < end; );
  })
  for (let i = 0; i < 3; i++) arrivals.add(i)
  expect(taken).toEqual([])
  for (const expected of [[0], [0, 1], [0, 1, 2], [0, 1, 2]]) {
    await rounds(1)
    expect(taken).toEqual(expected)
  }
  arrivals.add(3)
  await rounds(1)
  expect(taken).toEqual([0, 1, 2, 3])
})

it('what comes while others are taken waits behind them', async () => {
  const taken: number[] = []
  const arrivals: Arrivals<number> = new Arrivals((message) => {
    taken.push(message)
    if (message < 3) arrivals.add(message + 2)
  })
  arrivals.add(1)
  arrivals.add(2)
  await rounds(8)
  expect(taken).toEqual([1, 2, 3, 4])
})
