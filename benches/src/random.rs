//! Random numbers that are the same on every machine.

/// Uniform numbers of 16 bits that make up one normal number; with twelve its variance is 1.
const PARTS: u32 = 12;

/// The splitmix64 generator (Steele, Lea, Flood 2014). Integers and sums only, no `ln` or `cos`,
/// whose last bit depends on the platform.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Equal seeds give equal numbers.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u64 << 24) as f32
    }

    /// Uniform below `n`, which must be small beside 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Mean 0, variance 1, within `[-6, 6]`: near enough to normal (Irwin and Hall 1927).
    pub fn normal(&mut self) -> f32 {
        let mut sum = 0;
        for _ in 0..PARTS / 4 {
            let bits = self.bits();
            sum += (0..4)
                .map(|i| (bits >> (16 * i)) as u32 & 0xffff)
                .sum::<u32>();
        }
        let mean = PARTS as f32 * 32_767.5;
        (sum as f32 - mean) / 65_536.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut random = Random::new(3);
        let numbers: Vec<f64> = (0..20_000).map(|_| f64::from(random.normal())).collect();
        let mean = numbers.iter().sum::<f64>() / 20_000.0;
        let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.05, "variance {variance}");
    }
}
