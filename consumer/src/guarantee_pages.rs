//! The Rust of `docs/guarantees` is compiled with the tests of this documentation.

#[doc = include_str!("../../docs/guarantees/1-fire-and-forget.md")]
mod fire_and_forget {}
#[doc = include_str!("../../docs/guarantees/2-one-true-outcome.md")]
mod one_true_outcome {}
#[doc = include_str!("../../docs/guarantees/3-acknowledged-when-done.md")]
mod acknowledged_when_done {}
#[doc = include_str!("../../docs/guarantees/4-one-effect.md")]
mod one_effect {}
#[doc = include_str!("../../docs/guarantees/5-order-by-key.md")]
mod order_by_key {}
#[doc = include_str!("../../docs/guarantees/6-retries-and-dead-letters.md")]
mod retries_and_dead_letters {}
#[doc = include_str!("../../docs/guarantees/7-faults-lose-nothing.md")]
mod faults_lose_nothing {}
#[doc = include_str!("../../docs/guarantees/8-stopping-in-order.md")]
mod stopping_in_order {}
#[doc = include_str!("../../docs/guarantees/9-bounded-memory.md")]
mod bounded_memory {}
