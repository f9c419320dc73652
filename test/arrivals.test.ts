/** What has come from other threads takes turns with the rest of a loop. */
import { expect, it } from 'vitest'
import { Arrivals } from '../src/threads/arrivals.js'
import { rounds } from './support/wait.js'

it('what takes long goes one in a round, and all of it in order', async () => {
  const taken: number[] = []
  const arrivals = new Arrivals<number>((message) => {
    taken.push(message)
    for (const end = performance.now() + 2; performance.now() < end; );
    return false
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
    return false
  })
  arrivals.add(1)
  arrivals.add(2)
  await rounds(8)
  expect(taken).toEqual([1, 2, 3, 4])
})

it('one that has more in it is taken again before those behind it, and in another round where its time is over', async () => {
  const taken: string[] = []
  const left = new Map([
    ['a', 3],
    ['b', 2],
  ])
  const arrivals = new Arrivals<string>((message) => {
    taken.push(message)
    for (const end = performance.now() + 2; performance.now() < end; );
    left.set(message, left.get(message)! - 1)
    return left.get(message)! > 0
  })
  for (const message of left.keys()) arrivals.add(message)
  await rounds(2)
  expect(taken).toEqual(['a', 'a'])
  await rounds(4)
  expect(taken).toEqual(['a', 'a', 'a', 'b', 'b'])
})
