//! How much work is on the bus at once, and whose.

/// Bounds of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// A window is never smaller.
    pub min: u32,
    /// A window is never larger.
    pub max: u32,
}

impl WindowLimits {
    /// The bounds of a queue of which workers may hold so many steps at a time: twice as many at the
    /// most, so that the next one is there when one ends, and those of one task do not stand in front
    /// of another task's for long.
    pub fn within(self, max_running: Option<u32>) -> Self {
        let most = max_running.map_or(u32::MAX, |limit| limit.saturating_mul(2));
        Self { min: self.min.min(most), max: self.max.min(most) }
    }
}

/// How many steps may be on the bus or running: four for each live slot, so that no worker waits
/// for the next, or what is finished in a thirty-second of a second, whichever is more. What is published
/// stands in a queue that nobody reorders: each hop of another task waits for that long behind it.
pub fn window_size(live_slots: u32, finished_per_second: f64, limits: WindowLimits) -> u32 {
    let by_slots = live_slots.saturating_mul(4);
    // The cast saturates, and makes 0 of what is not a number.
    let by_rate = (finished_per_second / 32.0).ceil() as u32;
    by_slots.max(by_rate).min(limits.max).max(limits.min)
}

/// A task or batch that has steps to dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// -100 to 100; higher is served more and first.
    pub priority: i8,
    /// How many steps wait.
    pub waiting: u32,
    /// Whether it has only begun, and may be over soon.
    pub begins: bool,
}

impl Source {
    /// Every 25 steps of priority double the share: 1 at -100, 16 at 0, 256 at 100. What begins has four
    /// times as much: a small batch is over before a large one beside it feels it.
    fn weight(self) -> u64 {
        let steps = (i32::from(self.priority).clamp(-100, 100) + 100) / 25;
        1 << (steps + if self.begins { 2 } else { 0 })
    }
}

/// How many more members of a batch may be put on the bus: those that were never published, and no
/// more than its `parallelism` leaves room for beside those that are outstanding. A member that waits
/// for a retry is outstanding, so that the limit holds whenever it comes back.
pub fn publishable(expected: u32, published: u32, ended: u32, parallelism: Option<u32>) -> u32 {
    let left = expected.saturating_sub(published);
    let outstanding = published.saturating_sub(ended);
    parallelism.map_or(left, |most| left.min(most.saturating_sub(outstanding)))
}

/// Shares free room among sources; answers with a number for each.
///
/// Rounds go through the sources by priority, sources of equal priority in the given order; in a
/// round each gets `quantum` times its weight, or proportionally less when the room is smaller than
/// a round. Each source that waits gets at least one as long as there is room for one each, so none
/// starves; with less room than that the first ones are served, and the caller rotates its list.
pub fn share_out(room: u32, quantum: u32, sources: &[Source]) -> Vec<u32> {
    let mut shares = vec![0_u32; sources.len()];
    let mut order: Vec<usize> = (0..sources.len()).filter(|&n| sources[n].waiting > 0).collect();
    order.sort_by_key(|&n| std::cmp::Reverse(sources[n].priority));
    let mut room = room;
    while room > 0 && !order.is_empty() {
        let weights: u64 = order.iter().map(|&n| sources[n].weight()).sum();
        let round = u64::from(room).min(weights.saturating_mul(u64::from(quantum.max(1))));
        let mut behind = order.len() as u32;
        for &n in &order {
            behind -= 1;
            // Integer division of a round smaller than the weights gives some sources nothing: they
            // get one, and what is kept for those behind makes sure that it is there.
            let fair = (round * sources[n].weight() / weights).max(1);
            let free = room.saturating_sub(behind).max(u32::from(room > 0));
            let left = sources[n].waiting - shares[n];
            let share = left.min(free).min(u32::try_from(fair).unwrap_or(u32::MAX));
            shares[n] += share;
            room -= share;
        }
        order.retain(|&n| shares[n] < sources[n].waiting);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        let limits = WindowLimits { min: 256, max: 4096 };
        for (slots, rate, expect) in [
            (0, 0.0, 256),
            (10, 0.0, 256),
            (100, 0.0, 400),
            (100, 12_000.0, 400),
            (100, 16_000.0, 500),
            (100, 80_000.0, 2_500),
            (100, 1e12, 4096),
            (u32::MAX, 0.0, 4096),
            (0, f64::NAN, 256),
            (0, f64::INFINITY, 4096),
            (0, -5.0, 256),
        ] {
            assert_eq!(window_size(slots, rate, limits), expect, "{slots} {rate}");
        }
        assert_eq!(window_size(1, 0.0, WindowLimits { min: 9, max: 3 }), 9);
        for (max_running, slots, expect) in [
            (None, 100, 400),
            (Some(3), 100, 6),
            (Some(1), 0, 2),
            (Some(150), 0, 256),
            (Some(150), 100, 300),
            (Some(1_000), 100, 400),
            (Some(u32::MAX), 10_000, 4_096),
        ] {
            let got = window_size(slots, 0.0, limits.within(max_running));
            assert_eq!(got, expect, "{max_running:?} {slots}");
        }
    }

    #[test]
    fn members_within_their_limit() {
        // expected, published, ended, parallelism -> publishable
        for (expected, published, ended, parallelism, expect) in [
            (100, 0, 0, None, 100),
            (100, 60, 10, None, 40),
            (100, 0, 0, Some(8), 8),
            (100, 8, 0, Some(8), 0),
            (100, 8, 3, Some(8), 3),
            (100, 98, 95, Some(8), 2),
            (100, 100, 95, Some(8), 0),
            (5, 0, 0, Some(8), 5),
            // More is known of what ended than of what this node has published.
            (100, 8, 9, Some(8), 8),
        ] {
            let got = publishable(expected, published, ended, parallelism);
            assert_eq!(got, expect, "{expected} {published} {ended} {parallelism:?}");
        }
    }

    fn source(priority: i8, waiting: u32) -> Source {
        Source { priority, waiting, begins: false }
    }

    #[test]
    fn what_begins_has_four_times_as_much() {
        let begins = |waiting| Source { begins: true, ..source(0, waiting) };
        assert_eq!(share_out(100, 1, &[source(0, 1_000), begins(1_000)]), [20, 80]);
        assert_eq!(share_out(100, 1, &[begins(1_000), begins(1_000)]), [50, 50]);
        // As much as fifty steps of priority.
        assert_eq!(share_out(100, 1, &[source(50, 1_000), begins(1_000)]), [50, 50]);
        assert_eq!(share_out(100, 1, &[begins(1_000_000)]), [100]);
    }

    #[test]
    fn shares() {
        fn check(room: u32, quantum: u32, sources: &[(i8, u32)], expect: &[u32]) {
            let sources: Vec<Source> =
                sources.iter().map(|&(priority, waiting)| source(priority, waiting)).collect();
            assert_eq!(share_out(room, quantum, &sources), expect, "{room} {quantum} {sources:?}");
        }
        check(0, 8, &[(0, 5)], &[0]);
        check(100, 8, &[], &[]);
        check(100, 8, &[(0, 0), (0, 7)], &[0, 7]);
        check(100, 8, &[(0, 1_000_000)], &[100]);
        // Equal shares among equals; what one does not need goes to the others.
        check(100, 1, &[(0, 1000), (0, 1000)], &[50, 50]);
        check(100, 1, &[(0, 1000), (0, 10), (0, 1000)], &[45, 10, 45]);
        // A small task beside a large one gets all it needs.
        check(256, 16, &[(0, 100_000), (0, 8)], &[248, 8]);
        // A higher priority gets more, a lower one gets some.
        check(100, 1, &[(-100, 1000), (100, 1000)], &[1, 99]);
        check(90, 1, &[(0, 1000), (25, 1000)], &[30, 60]);
        // Less room than sources: by priority, then in the given order.
        check(2, 8, &[(0, 9), (0, 9), (50, 9)], &[1, 0, 1]);
        check(1, 8, &[(0, 9), (0, 9)], &[1, 0]);
    }

    #[test]
    fn nothing_starves_and_nothing_is_wasted() {
        let priorities = [-100, -1, 0, 1, 100];
        for room in (0..40).chain([100, 1000, 4096]) {
            for quantum in [0, 1, 7, 64, u32::MAX] {
                for waiting in [0, 1, 5, 900, u32::MAX] {
                    let sources: Vec<Source> = priorities
                        .iter()
                        .enumerate()
                        .map(|(n, &priority)| Source {
                            begins: n == 2,
                            ..source(priority, if n % 2 == 0 { waiting } else { 3 })
                        })
                        .collect();
                    let shares = share_out(room, quantum, &sources);
                    let all: u64 = sources.iter().map(|s| u64::from(s.waiting)).sum();
                    let sum: u64 = shares.iter().map(|&s| u64::from(s)).sum();
                    assert_eq!(
                        sum,
                        all.min(room.into()),
                        "{room} {quantum} {sources:?} {shares:?}"
                    );
                    for (share, source) in shares.iter().zip(&sources) {
                        assert!(*share <= source.waiting);
                        let starves = *share == 0 && source.waiting > 0 && room >= 5;
                        assert!(!starves, "{room} {quantum} {sources:?} {shares:?}");
                    }
                }
            }
        }
    }
}
