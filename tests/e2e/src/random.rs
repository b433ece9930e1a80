//! Random choices that depend on the seed alone: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).

use std::time::Duration;

pub struct Random(u64);

// === impl Random ===

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least `low`, at most `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "{low} is more than {high}");
        match (high - low).checked_add(1) {
            Some(width) => low + self.draw() % width,
            None => self.draw(),
        }
    }

    pub fn below(&mut self, count: usize) -> usize {
        self.between(0, count as u64 - 1) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.between(1, times) == 1
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// As likely between 1 and 10 as between 10 and 100: short ones are frequent and long ones occur.
    pub fn log_scaled(&mut self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (low.as_secs_f64().ln(), high.as_secs_f64().ln());
        let unit = (self.draw() >> 11) as f64 / (1_u64 << 53) as f64;
        Duration::from_millis(((low + (high - low) * unit).exp() * 1000.0).round() as u64)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence_within_its_bounds() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..1000).map(|_| random.between(3, 9)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        for wanted in 3..=9 {
            assert!(draw(7).contains(&wanted), "{wanted}");
        }
        assert!(draw(7).iter().all(|n| (3..=9).contains(n)));
        // The first number of the published generator with seed 0.
        assert_eq!(Random::new(0).draw(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn short_durations_are_frequent_and_long_ones_occur() {
        let mut random = Random::new(1);
        let (low, high) = (Duration::from_millis(100), Duration::from_secs(60));
        let drawn: Vec<Duration> = (0..1000).map(|_| random.log_scaled(low, high)).collect();
        assert!(drawn.iter().all(|d| (low..=high).contains(d)));
        let short = drawn.iter().filter(|d| **d < Duration::from_secs(2)).count();
        assert!((350..600).contains(&short), "{short}");
        assert!(drawn.iter().any(|d| *d > Duration::from_secs(40)));
    }
}
