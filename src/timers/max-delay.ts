/** The longest delay, in ms, that a timer of Node's can be set to: a longer one it turns into 1 ms. */
export const MAX_NODE_DELAY: number = 2 ** 31 - 1
