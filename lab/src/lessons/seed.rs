//! Every choice of a run comes from one number: the same seed makes the same messages fail.

/// A row of numbers that looks random and is the same for the same seed (SplitMix64, Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Choices(u64);

impl Choices {
    /// The choices of one lesson: each has a row of its own, so that `demo retried` chooses as `demo` does.
    #[must_use]
    pub fn new(seed: u64, lesson: &str) -> Self {
        let mixed = lesson.bytes().fold(seed, |mixed, byte| Self(mixed ^ u64::from(byte)).next());
        Self(mixed)
    }

    /// A number from 1 to `last`.
    pub fn number(&mut self, last: u64) -> u64 {
        1 + self.next() % last.max(1)
    }

    /// Puts these in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            let other = self.next() % (end as u64 + 1);
            items.swap(end, usize::try_from(other).unwrap_or(end));
        }
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
