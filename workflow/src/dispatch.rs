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

/// A batch that has members to dispatch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Source {
    /// -100 to 100; higher is served more and first.
    pub priority: i8,
    /// How many members wait.
    pub waiting: u32,
    /// Whether it has only begun, and may be over soon.
    pub begins: bool,
    /// What its last share left over, 0 at the beginning.
    pub credit: f64,
}

/// What a source gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// So many members now.
    pub members: u32,
    /// What it is owed beyond that; below 0 if it got more than its part.
    pub credit: f64,
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

/// Shares free room among sources; answers with a share for each.
///
/// Each source that waits is entitled to its part of the room by weight, and to its credit. Whoever is
/// entitled to most of a turn comes first, and gets what it is entitled to, or a whole turn if that is
/// more: `quantum` members, or all that wait. What it gets beyond its part is taken from its credit, and
/// whoever gets nothing keeps all of its own, so that in the long run each has its part, and none starves.
/// This is deficit round robin (Shreedhar and Varghese 1995) with weights. A turn costs a statement's row
/// for each batch, when it is published and when it ends: turns of single members would cost one each.
pub fn share_out(room: u32, quantum: u32, sources: &[Source]) -> Vec<Share> {
    let parts = parts(room, sources);
    let entitled = |n: usize| sources[n].credit + parts[n];
    let turn = |n: usize| sources[n].waiting.min(quantum.max(1));
    let mut order: Vec<usize> = (0..sources.len()).filter(|&n| sources[n].waiting > 0).collect();
    let urgency = |n: usize| entitled(n) / f64::from(turn(n));
    order.sort_by(|&a, &b| urgency(b).total_cmp(&urgency(a)));
    let mut members = vec![0_u32; sources.len()];
    let mut room = room;
    for &n in &order {
        // The cast saturates, and rounds down.
        members[n] = turn(n).max(entitled(n) as u32).min(sources[n].waiting).min(room);
        room -= members[n];
    }
    // What was lost by rounding, or is not needed where it was due.
    for &n in &order {
        let more = (sources[n].waiting - members[n]).min(room);
        members[n] += more;
        room -= more;
    }
    let share = |(n, members): (usize, u32)| {
        let credit = entitled(n) - f64::from(members);
        // Nobody is owed anything for a time in which it had nothing to send; what it owes stays.
        let all = members == sources[n].waiting;
        Share { members, credit: if all { credit.min(0.0) } else { credit } }
    };
    members.into_iter().enumerate().map(share).collect()
}

/// The part of each source in the room, by weight; what one does not need goes to the others.
fn parts(room: u32, sources: &[Source]) -> Vec<f64> {
    let mut parts = vec![0.0; sources.len()];
    let need = |n: usize| f64::from(sources[n].waiting) / sources[n].weight() as f64;
    let mut order: Vec<usize> = (0..sources.len()).filter(|&n| sources[n].waiting > 0).collect();
    order.sort_by(|&a, &b| need(a).total_cmp(&need(b)));
    let (mut room, mut at) = (f64::from(room), 0);
    let mut weights: u64 = order.iter().map(|&n| sources[n].weight()).sum();
    // Those that need no more than their part come first, and leave more to those behind them.
    while let Some(&n) = order.get(at).filter(|&&n| need(n) * weights as f64 <= room) {
        parts[n] = f64::from(sources[n].waiting);
        room -= parts[n];
        weights -= sources[n].weight();
        at += 1;
    }
    let unit = room / weights as f64;
    for &n in &order[at..] {
        parts[n] = unit * sources[n].weight() as f64;
    }
    parts
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
        Source { priority, waiting, begins: false, credit: 0.0 }
    }

    fn members(room: u32, quantum: u32, sources: &[Source]) -> Vec<u32> {
        share_out(room, quantum, sources).iter().map(|share| share.members).collect()
    }

    #[test]
    fn what_begins_has_four_times_as_much() {
        let begins = |waiting| Source { begins: true, ..source(0, waiting) };
        assert_eq!(members(100, 1, &[source(0, 1_000), begins(1_000)]), [20, 80]);
        assert_eq!(members(100, 1, &[begins(1_000), begins(1_000)]), [50, 50]);
        // As much as fifty steps of priority.
        assert_eq!(members(100, 1, &[source(50, 1_000), begins(1_000)]), [50, 50]);
        assert_eq!(members(100, 1, &[begins(1_000_000)]), [100]);
    }

    #[test]
    fn shares() {
        fn check(room: u32, quantum: u32, sources: &[(i8, u32)], expect: &[u32]) {
            let sources: Vec<Source> =
                sources.iter().map(|&(priority, waiting)| source(priority, waiting)).collect();
            assert_eq!(members(room, quantum, &sources), expect, "{room} {quantum} {sources:?}");
        }
        check(0, 8, &[(0, 5)], &[0]);
        check(100, 8, &[], &[]);
        check(100, 8, &[(0, 0), (0, 7)], &[0, 7]);
        check(100, 8, &[(0, 1_000_000)], &[100]);
        // Equal shares among equals; what one does not need goes to the others.
        check(100, 1, &[(0, 1000), (0, 1000)], &[50, 50]);
        check(100, 1, &[(0, 1000), (0, 10), (0, 1000)], &[45, 10, 45]);
        // A small batch beside a large one gets all it needs.
        check(256, 16, &[(0, 100_000), (0, 8)], &[248, 8]);
        // A higher priority gets more, a lower one gets some.
        check(100, 1, &[(-100, 1000), (100, 1000)], &[1, 99]);
        check(90, 1, &[(0, 1000), (25, 1000)], &[30, 60]);
        // Less room than turns: by priority, then in the given order.
        check(10, 8, &[(0, 9), (0, 9), (50, 9)], &[2, 0, 8]);
        check(1, 8, &[(0, 9), (0, 9)], &[1, 0]);
        // A turn is no more than what waits.
        check(10, 8, &[(0, 3), (0, 9), (0, 9)], &[3, 7, 0]);
    }

    #[test]
    fn small_batches_have_their_turn_at_once() {
        // Three hundred batches of eight, and room for five of them at a time.
        let mut sources = vec![source(0, 8); 300];
        for published in (0..300).step_by(5) {
            let shares = share_out(40, 16, &sources);
            for (n, share) in shares.iter().enumerate() {
                let expect = if (published..published + 5).contains(&n) { 8 } else { 0 };
                assert_eq!(share.members, expect, "batch {n}, when {published} are published");
                sources[n].waiting -= share.members;
                sources[n].credit = share.credit;
            }
        }
    }

    #[test]
    fn in_the_long_run_each_has_its_part() {
        let priorities = [-100, -100, 0, 0, 0, 25, 50];
        let mut sources: Vec<Source> = priorities.map(|p| source(p, u32::MAX)).into();
        let (room, rounds, quantum) = (37, 1_000, 16);
        let mut got = [0_u32; 7];
        for _ in 0..rounds {
            let shares = share_out(room, quantum, &sources);
            assert_eq!(shares.iter().map(|s| s.members).sum::<u32>(), room);
            for ((source, share), got) in sources.iter_mut().zip(shares).zip(&mut got) {
                source.credit = share.credit;
                *got += share.members;
            }
        }
        let weights = [1.0, 1.0, 16.0, 16.0, 16.0, 32.0, 64.0];
        for (got, weight) in got.iter().zip(weights) {
            let due = f64::from(room * rounds) * weight / 146.0;
            let off = (f64::from(*got) - due).abs();
            // A turn, and what one round rounds off for each of the others.
            assert!(off <= f64::from(quantum) + 7.0, "{got}, due are {due}");
        }
    }

    #[test]
    fn whoever_was_passed_over_comes_next() {
        let owed = |credit| Source { credit, ..source(0, 100) };
        assert_eq!(members(8, 8, &[owed(0.0), owed(0.5)]), [0, 8]);
        let shares = share_out(8, 8, &[owed(-4.0), owed(4.0)]);
        assert_eq!(shares, [Share { members: 0, credit: 0.0 }, Share { members: 8, credit: 0.0 }]);
        // Nothing is owed for a time in which nothing waited.
        let shares = share_out(4, 8, &[Source { waiting: 0, ..owed(50.0) }, owed(0.0)]);
        assert_eq!(shares[0], Share { members: 0, credit: 0.0 });
        // But it owes what it got beyond its part, also if its parallelism lets no more wait.
        let shares = share_out(10, 8, &[Source { waiting: 8, ..owed(5.0) }, owed(0.0)]);
        assert_eq!(shares[0], Share { members: 8, credit: 0.0 });
        let shares = share_out(8, 8, &[Source { waiting: 8, ..owed(0.0) }, owed(-1.0)]);
        assert_eq!(shares[0], Share { members: 8, credit: -4.0 });
    }

    #[test]
    fn nothing_is_wasted() {
        let priorities = [-100, -1, 0, 1, 100];
        let credits = [0.0, -1e9, 1e9, 3.5, -0.5];
        for room in (0..40).chain([100, 1000, 4096]) {
            for quantum in [0, 1, 7, 64, u32::MAX] {
                for waiting in [0, 1, 5, 900, u32::MAX] {
                    let sources: Vec<Source> = (0..5)
                        .map(|n| Source {
                            begins: n == 2,
                            credit: credits[n],
                            ..source(priorities[n], if n % 2 == 0 { waiting } else { 3 })
                        })
                        .collect();
                    let shares = members(room, quantum, &sources);
                    let all: u64 = sources.iter().map(|s| u64::from(s.waiting)).sum();
                    let sum: u64 = shares.iter().map(|&s| u64::from(s)).sum();
                    let case = format!("{room} {quantum} {sources:?} {shares:?}");
                    assert_eq!(sum, all.min(room.into()), "{case}");
                    assert!(shares.iter().zip(&sources).all(|(n, s)| *n <= s.waiting), "{case}");
                }
            }
        }
    }
}
