//! How many bytes of messages a consumer may hold, and the prefetch and the largest message that follow from it.

use std::num::{NonZeroU16, NonZeroUsize};

/// What fits a budget: so many messages of such a size never exceed it together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// How many unsettled deliveries are asked for.
    pub(crate) prefetch: u16,
    /// The most bytes that one message may have, headers included. What has more is parked.
    pub(crate) largest: usize,
    /// The bytes in all.
    pub(crate) bytes: usize,
}

/// The budget is too small for what the processing needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BudgetTooSmall {
    /// The least prefetch that works.
    pub(crate) needed: u16,
    /// How many messages fit.
    pub(crate) fit: usize,
}

impl Budget {
    /// Divides these bytes among as many deliveries as are wanted, or, if the largest message is given, as many of them as
    /// fit, and at least `needed`.
    pub(crate) fn of(
        bytes: usize,
        largest: Option<NonZeroUsize>,
        wanted: NonZeroU16,
        needed: NonZeroU16,
    ) -> Result<Self, BudgetTooSmall> {
        let Some(largest) = largest else {
            let largest = bytes / usize::from(wanted.get());
            return match largest {
                0 => Err(BudgetTooSmall { needed: wanted.get(), fit: bytes }),
                largest => Ok(Self { prefetch: wanted.get(), largest, bytes }),
            };
        };
        let fit = bytes / largest.get();
        let prefetch = u16::try_from(fit).unwrap_or(u16::MAX).min(wanted.get());
        if prefetch < needed.get() {
            return Err(BudgetTooSmall { needed: needed.get(), fit });
        }
        Ok(Self { prefetch, largest: largest.get(), bytes })
    }
}

/// 1 GiB: 16 MiB, the largest message that RabbitMQ takes, for each of the default 64 deliveries.
pub(crate) const DEFAULT_BUDGET: usize = 1024 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bytes: usize, largest: usize, wanted: u16, needed: u16) -> Result<(u16, usize), BudgetTooSmall> {
        let count = |n| NonZeroU16::new(n).unwrap();
        let budget = Budget::of(bytes, NonZeroUsize::new(largest), count(wanted), count(needed))?;
        assert!(usize::from(budget.prefetch) * budget.largest <= bytes, "{budget:?} exceeds {bytes}");
        Ok((budget.prefetch, budget.largest))
    }

    #[test]
    fn by_default_a_message_as_large_as_rabbitmq_takes_fits() {
        assert_eq!(budget(DEFAULT_BUDGET, 0, 64, 1), Ok((64, 16 * 1024 * 1024)));
    }

    #[test]
    fn larger_messages_cut_the_prefetch_and_smaller_ones_do_not_raise_it() {
        assert_eq!(budget(1_000, 100, 64, 1), Ok((10, 100)));
        assert_eq!(budget(1_000, 1, 64, 1), Ok((64, 1)));
        assert_eq!(budget(1_000, 1_000, 64, 1), Ok((1, 1_000)));
    }

    #[test]
    fn what_leaves_less_than_is_needed_is_refused_with_both_numbers() {
        assert_eq!(budget(1_000, 1_001, 64, 1), Err(BudgetTooSmall { needed: 1, fit: 0 }));
        assert_eq!(budget(1_000, 10, 320, 257), Err(BudgetTooSmall { needed: 257, fit: 100 }));
        assert_eq!(budget(63, 0, 64, 1), Err(BudgetTooSmall { needed: 64, fit: 63 }));
    }

    #[test]
    fn no_setting_exceeds_its_budget() {
        for bytes in [1, 2, 63, 64, 65, 1_000, usize::MAX] {
            for largest in [0, 1, 2, 7, 64, 999, usize::MAX] {
                for wanted in [1, 8, 64, u16::MAX] {
                    let _ = budget(bytes, largest, wanted, 1);
                }
            }
        }
    }
}
