//! How ticks of the counter become nanoseconds, and deadlines ticks.
//!
//! `ns = ticks * mult >> shift` over 128 bits, with the largest `mult` that fits 64 bits: its
//! relative error is below 2^-63, less than a nanosecond in a century, and two multiplications
//! replace a division. Both directions are monotonic.

use abi::Nanos;

/// The factors for one counter frequency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversion {
    mult: u64,
    shift: u32,
    /// The inverse: ticks per nanosecond.
    inverse_mult: u64,
    inverse_shift: u32,
}

/// `numerator / denominator` as `mult / 2^shift`, with the largest `mult` below 2^64.
const fn ratio(numerator: u64, denominator: u64) -> (u64, u32) {
    let mut shift = 0;
    let mut mult = numerator as u128 / denominator as u128;
    // At most 93 rounds: numerator and denominator are not zero and below 2^64.
    while shift < 93 {
        let next = ((numerator as u128) << (shift + 1)).div_ceil(denominator as u128);
        if next > u64::MAX as u128 || numerator.leading_zeros() + 64 <= shift + 1 {
            break;
        }
        mult = next;
        shift += 1;
    }
    (mult as u64, shift)
}

impl Conversion {
    /// For a counter that ticks at `frequency` Hz. Zero, which no counter has, counts as 1.
    pub const fn new(frequency: u64) -> Self {
        let frequency = if frequency == 0 { 1 } else { frequency };
        let (mult, shift) = ratio(Nanos::PER_SEC, frequency);
        let (inverse_mult, inverse_shift) = ratio(frequency, Nanos::PER_SEC);
        Self { mult, shift, inverse_mult, inverse_shift }
    }

    /// Nanoseconds that `ticks` take, rounded down.
    #[inline]
    pub const fn to_nanos(&self, ticks: u64) -> Nanos {
        let ns = (ticks as u128 * self.mult as u128) >> self.shift;
        Nanos(if ns > u64::MAX as u128 { u64::MAX } else { ns as u64 })
    }

    /// The first tick at which `to_nanos` is `ns` or more; saturates.
    pub const fn to_ticks(&self, ns: Nanos) -> u64 {
        let ticks = (ns.0 as u128 * self.inverse_mult as u128) >> self.inverse_shift;
        if ticks > u64::MAX as u128 {
            return u64::MAX;
        }
        let mut ticks = ticks as u64;
        // The estimate is off by a tick or two; step to the exact one.
        while ticks > 0 && self.to_nanos(ticks - 1).0 >= ns.0 {
            ticks -= 1;
        }
        while self.to_nanos(ticks).0 < ns.0 && ticks < u64::MAX {
            ticks += 1;
        }
        ticks
    }

    /// `mult` and `shift`, for the vDSO's data page.
    pub const fn factors(&self) -> (u64, u32) {
        (self.mult, self.shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FREQUENCIES: [u64; 7] = [1, 19_200_000, 24_000_000, 54_000_000, 62_500_000, 1_000_000_000, 1_234_567_891];

    #[test]
    fn a_century_of_ticks_is_off_by_less_than_two_nanoseconds() {
        for f in FREQUENCIES {
            let c = Conversion::new(f);
            let seconds = 100 * 365 * 86_400_u64;
            let exact = seconds * Nanos::PER_SEC;
            let got = c.to_nanos(seconds.saturating_mul(f)).0;
            assert!(got.abs_diff(exact) <= 2, "{f} Hz: {got} instead of {exact}");
        }
    }

    #[test]
    fn nanosecond_counter_converts_to_itself() {
        let c = Conversion::new(1_000_000_000);
        for n in [0, 1, 2, 999, 1 << 40, u64::MAX / 2] {
            assert_eq!(c.to_nanos(n).0, n);
            assert_eq!(c.to_ticks(Nanos(n)), n);
        }
    }

    proptest! {
        #[test]
        fn a_deadline_in_ticks_is_the_first_tick_not_before_it(f in 1_u64..=4_000_000_000, ns in 0_u64..1 << 62) {
            let c = Conversion::new(f);
            let t = c.to_ticks(Nanos(ns));
            prop_assert!(c.to_nanos(t).0 >= ns);
            prop_assert!(t == 0 || c.to_nanos(t - 1).0 < ns);
        }

        #[test]
        fn conversion_is_within_one_nanosecond_of_the_division(f in 1_u64..=4_000_000_000, ticks in 0_u64..1 << 56) {
            let exact = ticks as u128 * 1_000_000_000 / f as u128;
            prop_assume!(exact < u64::MAX as u128);
            let got = Conversion::new(f).to_nanos(ticks).0 as u128;
            prop_assert!(got.abs_diff(exact) <= 1);
        }
    }
}
