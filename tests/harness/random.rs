//! Numbers drawn at random, the same for the same seed.

/// A small generator: the same numbers for the same seed, on every machine (`SplitMix64`).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        let span = (high - low + 1) as u64;
        low + usize::try_from(self.next() % span).expect("below a usize")
    }

    /// One of two.
    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }
}

/// `PITR_TEST_SEED`, or the clock.
pub fn seed() -> u64 {
    let given = std::env::var("PITR_TEST_SEED").ok().map(|text| text.parse().expect("PITR_TEST_SEED is a number"));
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        now.as_secs() << 20 ^ u64::from(now.subsec_micros())
    })
}
