//! Chance without a generator: every draw is a function of the seed and of the thing that is drawn.
//!
//! The same scenario and the same calls therefore give the same faults, sizes and latencies, regardless of the order in
//! which the calls arrive.

/// A hash of two numbers, good enough to draw from (SplitMix64's finaliser).
#[must_use]
pub fn mix(a: u64, b: u64) -> u64 {
    let mut z = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in `[0, 1)` drawn from a hash.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
pub fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// A draw from the standard normal distribution, cut at four deviations so that no tail is absurd.
#[must_use]
pub fn normal(hash: u64) -> f64 {
    let first = 1.0 - unit(mix(hash, 1));
    let second = unit(mix(hash, 2));
    let drawn = (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos();
    drawn.clamp(-4.0, 4.0)
}

/// How far from the median the 99th percentile of a normal distribution lies, in deviations.
const P99_DEVIATIONS: f64 = 2.326_347_874;

/// A distribution of latencies (in seconds) or of answer sizes (in tokens).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// Always the same.
    Fixed(f64),
    /// Evenly between two values.
    Uniform(f64, f64),
    /// Lognormal, as latencies of model providers are: most near the median, a long tail.
    Lognormal {
        /// Half of the draws are below this.
        median: f64,
        /// One draw in a hundred is above this.
        p99: f64,
    },
}

impl Spread {
    /// The draw that belongs to this hash.
    #[must_use]
    pub fn draw(self, hash: u64) -> f64 {
        match self {
            Self::Fixed(value) => value,
            Self::Uniform(low, high) => low + (high - low) * unit(hash),
            Self::Lognormal { median, p99 } => {
                let sigma = (p99 / median).ln() / P99_DEVIATIONS;
                median * (sigma * normal(hash)).exp()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lognormal_has_the_median_and_the_tail_it_was_given() {
        let spread = Spread::Lognormal { median: 0.4, p99: 3.0 };
        let mut drawn: Vec<f64> = (0..20_000).map(|i| spread.draw(mix(7, i))).collect();
        drawn.sort_by(f64::total_cmp);
        let at = |share: usize| drawn[drawn.len() * share / 100];
        assert!((0.38..0.42).contains(&at(50)), "{}", at(50));
        assert!((2.6..3.4).contains(&at(99)), "{}", at(99));
    }

    #[test]
    fn a_uniform_stays_in_its_range_and_a_fixed_value_is_fixed() {
        for i in 0..1000 {
            let drawn = Spread::Uniform(20.0, 30.0).draw(mix(1, i));
            assert!((20.0..30.0).contains(&drawn));
        }
        assert!((Spread::Fixed(5.0).draw(99) - 5.0).abs() < f64::EPSILON);
    }

    #[test]
    fn draws_are_evenly_spread() {
        let below = (0..10_000).filter(|i| unit(mix(42, *i)) < 0.1).count();
        assert!((900..1100).contains(&below), "{below}");
    }
}
