/**
 * Where the receiver cuts small messages from, and where the sender finds them again when they are echoed. One per thread.
 */
import { BufferSlab } from '../../index.js'

export const dataSlab: BufferSlab = new BufferSlab()
