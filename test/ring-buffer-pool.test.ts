import { expect, it } from 'vitest'
import { RingBufferPool } from '../src/ringbuffer/pool.js'

it('hands out the ring that was given last, empty', () => {
  const pool = new RingBufferPool({ initialCapacity: 16 })
  const ring = pool.take()
  expect([ring.capacity, ring.length, pool.size]).toEqual([16, 0, 0])
  ring.writeString('left over')
  ring.virtualRead(Buffer.alloc(3))
  pool.give(ring)
  expect(pool.size).toBe(1)
  expect(pool.take()).toBe(ring)
  expect([ring.length, ring.virtualLength, pool.size]).toEqual([0, 0, 0])
})

it('lets go of foreign memory when a view is given', () => {
  const pool = new RingBufferPool()
  const ring = pool.take()
  ring.attach(Buffer.from('foreign'), 0, 7)
  pool.give(ring)
  expect([pool.take(), ring.isView, ring.storage.length]).toEqual([ring, false, 0])
})

it('keeps no more rings than it may', () => {
  const pool = new RingBufferPool({ maxBuffers: 2 })
  const rings = [pool.take(), pool.take(), pool.take()]
  for (const ring of rings) pool.give(ring)
  expect(pool.size).toBe(2)
})

it('drops a ring that has grown too large', () => {
  const pool = new RingBufferPool({ maxCapacity: 64, initialCapacity: 16 })
  const fits = pool.take()
  const large = pool.take()
  fits.write(Buffer.alloc(64))
  large.write(Buffer.alloc(65))
  pool.give(large)
  expect(pool.size).toBe(0)
  pool.give(fits)
  expect(pool.size).toBe(1)
})

it('notices a ring that is given twice', () => {
  const pool = new RingBufferPool()
  const ring = pool.take()
  pool.give(ring)
  expect(() => pool.give(ring)).toThrow(/twice/)
  expect(pool.size).toBe(1)
  pool.give(pool.take())
  expect(pool.size).toBe(1)
})

it('bounds the growth of its rings', () => {
  const ring = new RingBufferPool({ growthLimit: 100 }).take()
  ring.write(Buffer.alloc(100))
  expect(() => ring.writeByte(1)).toThrow(expect.objectContaining({ code: 'ERR_RINGLOOP_BUFFER_LIMIT' }))
})
