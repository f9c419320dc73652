import { describe, expect, it, vi } from 'vitest'
import { TaskQueue } from '../src/loop/task-queue.js'

const unexpected = (error: unknown): never => expect.unreachable(String(error))

describe('TaskQueue', () => {
  it('runs tasks in the order in which they came', () => {
    const queue = new TaskQueue(unexpected)
    const ran: number[] = []
    for (let i = 0; i < 1_000; i++) queue.push(() => ran.push(i))
    expect(queue.length).toBe(1_000)
    queue.run()
    expect(ran).toEqual(Array.from({ length: 1_000 }, (_, i) => i))
    expect(queue.length).toBe(0)
  })

  it('leaves tasks that are queued meanwhile for the next run', () => {
    const queue = new TaskQueue(unexpected)
    let runs = 0
    const again = (): void => {
      runs++
      queue.push(again)
    }
    queue.push(again)
    queue.push(again)
    queue.run()
    expect(runs).toBe(2)
    expect(queue.length).toBe(2)
    queue.run()
    expect(runs).toBe(4)
  })

  it('reports what a task throws and runs the others', () => {
    const onError = vi.fn()
    const queue = new TaskQueue(onError)
    const error = new Error('boom')
    const after = vi.fn()
    queue.push(() => {
      throw error
    })
    queue.push(after)
    queue.run()
    expect(onError.mock.calls).toEqual([[error]])
    expect(after).toHaveBeenCalledTimes(1)
  })

  it('keeps what is left when the error callback throws', () => {
    const queue = new TaskQueue((error) => {
      throw error
    })
    const after = vi.fn()
    queue.push(() => {
      throw new Error('boom')
    })
    queue.push(after)
    expect(() => queue.run()).toThrow('boom')
    queue.run()
    expect(after).toHaveBeenCalledTimes(1)
  })

  it('can be run and cleared from a task without running one twice', () => {
    const queue = new TaskQueue(unexpected)
    const ran: string[] = []
    queue.push(() => {
      ran.push('first')
      queue.run()
    })
    queue.push(() => ran.push('second'))
    queue.push(() => {
      ran.push('third')
      queue.clear()
    })
    queue.push(() => ran.push('fourth'))
    queue.run()
    expect(ran).toEqual(['first', 'second', 'third'])
    expect(queue.length).toBe(0)
  })
})
