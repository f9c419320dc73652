/** For the type tests: nothing here, or in the files beside it, is ever run. The compiler's word is the test. */

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

/**
 * `exactly<A>()(value)` compiles only where the type of `value` is `A`, no more and no less: `any` is not taken for it.
 */
export declare function exactly<A>(): <B>(value: B & (Same<A, B> extends true ? unknown : never)) => void
