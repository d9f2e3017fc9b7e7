//! When a failed step runs again.

use std::fmt;
use std::str::FromStr;

use tasker_messages::StepFailure;

/// How a step is retried.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Whether it runs again at all.
    pub retryable: bool,
    /// How often it runs at most, the first run included.
    pub max_attempts: u32,
    /// How the pause between attempts grows.
    pub backoff: Backoff,
    /// How many times as long each pause is as the one before, where the backoff is exponential.
    pub multiplier: f64,
    /// The first pause in milliseconds.
    pub base_ms: u64,
    /// The longest pause in milliseconds.
    pub max_ms: u64,
    /// Whether a pause is shortened by up to a half, so that steps that failed together do not come
    /// back together.
    pub jitter: bool,
}

impl Default for RetryPolicy {
    /// Three runs with pauses of about one and two seconds.
    fn default() -> Self {
        Self {
            retryable: true,
            max_attempts: 3,
            backoff: Backoff::Exponential,
            multiplier: 2.0,
            base_ms: 1_000,
            max_ms: 60_000,
            jitter: true,
        }
    }
}

impl RetryPolicy {
    /// The pause before this retry without jitter, in milliseconds; the first retry is 0.
    fn pause(&self, retry: u32) -> u64 {
        let times = |factor: u64| self.base_ms.saturating_mul(factor);
        let pause = match self.backoff {
            Backoff::None => 0,
            Backoff::Linear => times(u64::from(retry) + 1),
            Backoff::Exponential => {
                let exponent = i32::try_from(retry).unwrap_or(i32::MAX);
                // The cast saturates; nothing times infinity is no number and becomes 0.
                (self.base_ms as f64 * self.multiplier.powi(exponent)) as u64
            }
            Backoff::Fibonacci => {
                // The 94th number is the first that does not fit; later ones saturate alike.
                let pair =
                    (0..retry.min(100)).fold((1_u64, 1_u64), |(a, b), _| (b, a.saturating_add(b)));
                times(pair.0)
            }
        };
        pause.min(self.max_ms)
    }
}

/// How the pause between attempts grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backoff {
    /// No pause.
    None,
    /// 1, 2, 3, 4 … times the base.
    Linear,
    /// 1, 2, 4, 8 … times the base, or the powers of another multiplier.
    Exponential,
    /// 1, 1, 2, 3, 5 … times the base.
    Fibonacci,
}

impl Backoff {
    /// Every value.
    pub const ALL: &'static [Backoff] =
        &[Backoff::None, Backoff::Linear, Backoff::Exponential, Backoff::Fibonacci];

    /// The name in templates.
    pub const fn as_str(self) -> &'static str {
        match self {
            Backoff::None => "none",
            Backoff::Linear => "linear",
            Backoff::Exponential => "exponential",
            Backoff::Fibonacci => "fibonacci",
        }
    }
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A backoff's name that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown backoff")]
pub struct UnknownBackoff;

impl FromStr for Backoff {
    type Err = UnknownBackoff;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|backoff| backoff.as_str() == name).ok_or(UnknownBackoff)
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    /// It runs again.
    Retry {
        /// Not before so many milliseconds from now.
        delay_ms: u64,
        /// Whether it costs a try of the budget.
        charged: bool,
    },
    /// The step has failed.
    Exhausted,
}

/// The longest pause that a handler can ask for by `retry_after_ms`: a year. A time that far away
/// is a mistake, and one farther does not fit a timestamp.
const MAX_DELAY_MS: u64 = 365 * 24 * 3600 * 1000;

/// The shortest and the longest pause of a step that met a worker without its handler.
const UNSERVED_MS: (u64, u64) = (500, 30_000);

/// Decides what follows a failed attempt, by its number.
///
/// `tries_used` is the budget used up before this failure. A worker that does not have the handler
/// charges nothing: the next one may have it, and pauses grow until one does. `seed` decides the jitter; the same seed
/// gives the same pause. `retry_after_ms` of the failure is a lower bound, also above `max_ms`.
pub fn next_attempt(
    policy: &RetryPolicy,
    failure: &StepFailure,
    attempt: u32,
    tries_used: u32,
    seed: u64,
) -> NextAttempt {
    if failure.is_unserved() {
        // Attempts that cost nothing are mostly those that met no handler. Whoever knows that another
        // worker has it says how soon to try.
        let in_vain = attempt.saturating_sub(tries_used.saturating_add(1)).min(16);
        let grown = (UNSERVED_MS.0 << in_vain).min(UNSERVED_MS.1);
        let full = failure.retry_after_ms.map_or(grown, |soon| soon.clamp(1, UNSERVED_MS.1));
        return NextAttempt::Retry { delay_ms: full - below(full / 2, seed), charged: false };
    }
    let spent = tries_used.saturating_add(1) >= policy.max_attempts;
    if spent || !policy.retryable || !failure.retryable {
        return NextAttempt::Exhausted;
    }
    let full = policy.pause(tries_used);
    let pause = if policy.jitter { full - below(full / 2, seed) } else { full };
    let delay_ms = pause.max(failure.retry_after_ms.unwrap_or(0)).min(MAX_DELAY_MS);
    NextAttempt::Retry { delay_ms, charged: true }
}

/// A number from 0 to `most`, spread by the finalizer of SplitMix64 (Steele et al., 2014) because
/// seeds may be neighbours.
fn below(most: u64, seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    // Scales by the high half of the product; a remainder would prefer small numbers.
    ((u128::from(z) * (u128::from(most) + 1)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(retryable: bool, retry_after_ms: Option<u64>) -> StepFailure {
        StepFailure {
            code: "X".to_owned(),
            message: String::new(),
            retryable,
            error_type: String::new(),
            retry_after_ms,
            context: serde_json::Value::Null,
        }
    }

    fn policy(backoff: Backoff) -> RetryPolicy {
        let (base_ms, max_ms) = (100, 1_000);
        RetryPolicy {
            max_attempts: 100,
            backoff,
            base_ms,
            max_ms,
            jitter: false,
            ..RetryPolicy::default()
        }
    }

    fn delay(policy: &RetryPolicy, retry_after_ms: Option<u64>, tries_used: u32, seed: u64) -> u64 {
        match next_attempt(policy, &failure(true, retry_after_ms), 1, tries_used, seed) {
            NextAttempt::Retry { delay_ms, charged: true } => delay_ms,
            _ => panic!("exhausted after {tries_used}"),
        }
    }

    #[test]
    fn pauses_grow() {
        for (backoff, expect) in [
            (Backoff::None, [0, 0, 0, 0, 0, 0]),
            (Backoff::Linear, [100, 200, 300, 400, 500, 600]),
            (Backoff::Exponential, [100, 200, 400, 800, 1000, 1000]),
            (Backoff::Fibonacci, [100, 100, 200, 300, 500, 800]),
        ] {
            let policy = policy(backoff);
            let got: Vec<u64> = (0..6).map(|tries| delay(&policy, None, tries, 1)).collect();
            assert_eq!(got, expect, "{backoff}");
            assert_eq!(backoff.as_str().parse(), Ok(backoff));
        }
    }

    #[test]
    fn the_multiplier_is_applied() {
        for (multiplier, expect) in [
            (1.0, [100, 100, 100, 100]),
            (1.5, [100, 150, 225, 337]),
            (3.0, [100, 300, 900, 1000]),
            (100.0, [100, 1000, 1000, 1000]),
        ] {
            let policy = RetryPolicy { multiplier, ..policy(Backoff::Exponential) };
            let got: Vec<u64> = (0..4).map(|tries| delay(&policy, None, tries, 1)).collect();
            assert_eq!(got, expect, "{multiplier}");
            let linear = RetryPolicy { backoff: Backoff::Linear, ..policy };
            assert_eq!(delay(&linear, None, 2, 1), 300, "{multiplier}");
        }
        let zero = RetryPolicy { base_ms: 0, ..policy(Backoff::Exponential) };
        assert_eq!(delay(&zero, None, 98, 1), 0);
    }

    #[test]
    fn nothing_overflows() {
        for backoff in Backoff::ALL {
            let (base_ms, max_ms) = (u64::MAX, u64::MAX);
            let policy =
                RetryPolicy { max_attempts: u32::MAX, base_ms, max_ms, ..policy(*backoff) };
            for tries in [0, 1, 63, 64, 93, 94, 1000, u32::MAX - 2] {
                assert!(delay(&policy, Some(u64::MAX), tries, u64::MAX) <= MAX_DELAY_MS);
            }
            let spent = next_attempt(&policy, &failure(true, None), 1, u32::MAX, 0);
            assert_eq!(spent, NextAttempt::Exhausted);
        }
    }

    #[test]
    fn the_budget_ends() {
        let policy = RetryPolicy::default();
        for (policy, retryable, tries_used, retries) in [
            (&policy, true, 0, true),
            (&policy, true, 1, true),
            (&policy, true, 2, false),
            (&policy, true, 3, false),
            (&policy, false, 0, false),
            (&RetryPolicy { retryable: false, ..policy.clone() }, true, 0, false),
            (&RetryPolicy { max_attempts: 1, ..policy.clone() }, true, 0, false),
        ] {
            let next = next_attempt(policy, &failure(retryable, None), 1, tries_used, 0);
            assert_eq!(next != NextAttempt::Exhausted, retries, "{policy:?} {tries_used}");
        }
    }

    #[test]
    fn a_worker_without_the_handler_costs_time_and_nothing_else() {
        let unserved = StepFailure {
            code: tasker_messages::code::HANDLER_NOT_FOUND.to_owned(),
            error_type: StepFailure::UNSERVED.to_owned(),
            ..failure(true, None)
        };
        // The budget is of no interest, whatever the policy says.
        let policy = RetryPolicy { max_attempts: 1, retryable: false, ..RetryPolicy::default() };
        for (attempt, tries_used, most) in [
            (1, 0, 500),
            (2, 0, 1_000),
            (2, 1, 500),
            (5, 1, 4_000),
            (9, 0, 30_000),
            (u32::MAX, 0, 30_000),
            (1, u32::MAX, 500),
        ] {
            for seed in 0..100 {
                let next = next_attempt(&policy, &unserved, attempt, tries_used, seed);
                let NextAttempt::Retry { delay_ms, charged: false } = next else {
                    panic!("{attempt} {tries_used}: {next:?}");
                };
                assert!((most / 2..=most).contains(&delay_ms), "{attempt} {tries_used} {delay_ms}");
            }
        }
        // Another worker is known to have it.
        let soon = StepFailure { retry_after_ms: Some(250), ..unserved.clone() };
        let NextAttempt::Retry { delay_ms, charged: false } =
            next_attempt(&policy, &soon, 40, 0, 7)
        else {
            panic!("not tried again");
        };
        assert!((125..=250).contains(&delay_ms), "{delay_ms}");
        // The same code from a handler is its own error.
        let own = StepFailure { error_type: String::new(), ..unserved };
        assert_eq!(next_attempt(&policy, &own, 1, 0, 0), NextAttempt::Exhausted);
    }

    #[test]
    fn a_handler_can_ask_for_more_but_not_for_less() {
        let policy = policy(Backoff::Linear);
        assert_eq!(delay(&policy, Some(5), 0, 0), 100);
        assert_eq!(delay(&policy, Some(150), 0, 0), 150);
        assert_eq!(delay(&policy, Some(70_000), 0, 0), 70_000);
    }

    #[test]
    fn jitter_stays_within_its_half_and_spreads() {
        let policy = RetryPolicy { jitter: true, ..policy(Backoff::Linear) };
        let delays: Vec<u64> = (0..10_000).map(|seed| delay(&policy, None, 0, seed)).collect();
        assert!(delays.iter().all(|delay| (50..=100).contains(delay)));
        assert_eq!(delay(&policy, None, 0, 7), delay(&policy, None, 0, 7));
        for value in 50..=100 {
            // 10,000 draws over 51 values: 196 each, with a deviation of 14.
            let count = delays.iter().filter(|&&delay| delay == value).count();
            assert!((120..280).contains(&count), "{value} {count} times");
        }
        let none = RetryPolicy { base_ms: 0, ..policy };
        assert_eq!(delay(&none, None, 3, 9), 0);
    }
}
