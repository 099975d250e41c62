//! Orders that no cache can follow.

/// Marsaglia's xorshift64: enough for that, and the same in every run.
pub(crate) struct XorShift(u64);

impl XorShift {
    /// Another order for each number.
    pub(crate) fn new(number: u32) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ u64::from(number) << 32)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
