//! How the limit of a namespace is shared among its queues.

/// A queue of a limited namespace, as its durable consumer describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueUse {
    /// How many of its steps may be with workers at a time now.
    pub share: u32,
    /// How many are.
    pub running: u32,
    /// How many wait for it on the bus.
    pub waiting: u32,
    /// How many may be, by a limit of its own.
    pub most: u32,
}

impl QueueUse {
    fn need(&self) -> u32 {
        self.running.saturating_add(self.waiting).min(self.most)
    }

    /// How many may be with workers before its share is changed, whatever happens meanwhile.
    fn reach(&self) -> u32 {
        self.share.max(self.running)
    }
}

/// What each queue should have: together never more than `limit`, as much as it needs where that is
/// possible, and else as evenly as possible. What nobody needs is left where it is, or given to those
/// who have nothing, so that the next step finds a share. If there are more queues in need than `limit`,
/// they take turns by `turn`, a number that rises.
pub fn share_limit(limit: u32, queues: &[QueueUse], turn: u64) -> Vec<u32> {
    let satisfied = |queue: &QueueUse| queue.share >= queue.need() && queue.share <= queue.most;
    let mut shares = vec![0; queues.len()];
    let given: u64 = queues.iter().map(|queue| u64::from(queue.share)).sum();
    if queues.iter().all(satisfied) && given <= u64::from(limit) {
        shares = queues.iter().map(|queue| queue.share).collect();
    } else {
        let needy = queues.iter().filter(|queue| queue.need() > 0).count();
        // An order that changes would move shares about for nothing where each gets one.
        let first = if needy > limit as usize { turn } else { 0 };
        fill(limit, first, &mut shares, |n| queues[n].need());
        // Not more than it has of what others do not need.
        fill(limit, 0, &mut shares, |n| queues[n].most.min(queues[n].share.max(1)));
    }
    fill(limit, 0, &mut shares, |n| queues[n].most);
    shares
}

/// Hands out what is left of the limit one by one in turn, up to a bound for each.
fn fill(limit: u32, first: u64, shares: &mut [u32], bound: impl Fn(usize) -> u32) {
    let given: u64 = shares.iter().map(|share| u64::from(*share)).sum();
    let mut left = u64::from(limit).saturating_sub(given);
    let mut open: Vec<usize> = (0..shares.len()).filter(|&n| shares[n] < bound(n)).collect();
    if !open.is_empty() {
        let first = usize::try_from(first % open.len() as u64).unwrap_or(0);
        open.rotate_left(first);
    }
    while left > 0 && !open.is_empty() {
        // Whole rounds at once, so that a high limit does not take as many steps.
        let least = open.iter().map(|&n| bound(n) - shares[n]).min().unwrap_or(0);
        let round = u64::from(least).min(left / open.len() as u64);
        let each = u32::try_from(round).unwrap_or(least);
        if each == 0 {
            // Less than one for each: the first ones get it.
            open.iter()
                .take(usize::try_from(left).unwrap_or(usize::MAX))
                .for_each(|&n| shares[n] += 1);
            return;
        }
        open.iter().for_each(|&n| shares[n] += each);
        left -= u64::from(each) * open.len() as u64;
        open.retain(|&n| shares[n] < bound(n));
    }
}

/// What each queue may have at once on its way to what it should have: less at once, more only of what
/// is free whatever has been delivered since it was looked at. What a lower share sets free is seen the
/// next time. So together they never reach beyond `limit`, or beyond what they reached before.
pub fn next_shares(limit: u32, queues: &[QueueUse], wanted: &[u32]) -> Vec<u32> {
    let reach: u64 = queues.iter().map(|queue| u64::from(queue.reach())).sum();
    let mut free = u64::from(limit).saturating_sub(reach);
    let next = queues.iter().zip(wanted).map(|(queue, &wanted)| {
        let more = wanted.saturating_sub(queue.reach());
        let granted = u32::try_from(free).unwrap_or(u32::MAX).min(more);
        free -= u64::from(granted);
        wanted.min(queue.reach() + granted)
    });
    next.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: u32 = u32::MAX;

    /// Share, running, waiting, own limit.
    fn queues(uses: &[(u32, u32, u32, u32)]) -> Vec<QueueUse> {
        let queue = |&(share, running, waiting, most)| QueueUse { share, running, waiting, most };
        uses.iter().map(queue).collect()
    }

    #[test]
    fn shares_by_need() {
        for (limit, uses, expect) in [
            // One queue has all of it.
            (8, &[(0, 0, 3, ANY)][..], &[8][..]),
            // Nobody needs anything: evenly, so that the next step finds a share.
            (8, &[(0, 0, 0, ANY), (0, 0, 0, ANY)], &[4, 4]),
            (1, &[(0, 0, 0, ANY), (0, 0, 0, ANY)], &[1, 0]),
            // All need more than there is.
            (8, &[(8, 8, 16, ANY), (0, 0, 16, ANY)], &[4, 4]),
            (8, &[(3, 3, 9, ANY), (3, 3, 9, ANY), (2, 2, 9, ANY)], &[3, 3, 2]),
            // What one does not need goes to the other, and comes back.
            (8, &[(4, 1, 0, ANY), (4, 4, 12, ANY)], &[1, 7]),
            (8, &[(1, 1, 5, ANY), (7, 7, 9, ANY)], &[4, 4]),
            // All of it to where it is needed, also what an idle queue has.
            (8, &[(4, 0, 0, ANY), (4, 4, 4, ANY)], &[0, 8]),
            // Whoever has enough keeps it while nobody lacks anything.
            (8, &[(7, 2, 0, ANY), (1, 1, 0, ANY)], &[7, 1]),
            // A limit of a queue's own holds as well.
            (8, &[(0, 0, 9, 2), (0, 0, 9, ANY)], &[2, 6]),
            (8, &[(5, 0, 0, 2), (3, 0, 0, 2)], &[2, 2]),
            // A lower limit than what is given.
            (2, &[(4, 4, 4, ANY), (4, 4, 4, ANY)], &[1, 1]),
            (8, &[(8_192, 100, 50, ANY), (8_192, 0, 0, ANY)], &[8, 0]),
            (ANY, &[(8, 8, 8, ANY), (8, 8, 8, ANY)], &[2_147_483_648, 2_147_483_647]),
            (8, &[], &[]),
        ] {
            assert_eq!(share_limit(limit, &queues(uses), 0), expect, "{limit} {uses:?}");
        }
    }

    #[test]
    fn queues_take_turns_where_there_is_too_little_for_all() {
        let uses = queues(&[(1, 1, 5, ANY), (1, 1, 5, ANY), (0, 0, 5, ANY), (0, 0, 0, ANY)]);
        let turns: Vec<Vec<u32>> = (0..4).map(|turn| share_limit(2, &uses, turn)).collect();
        assert_eq!(turns, [[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0]]);
    }

    #[test]
    fn more_only_of_what_is_free() {
        for (limit, uses, wanted, expect) in [
            (8, &[(0, 0, 9, ANY)][..], &[8][..], &[8][..]),
            // First one gives, then the other gets, when what runs has ended.
            (8, &[(8, 8, 9, ANY), (0, 0, 9, ANY)], &[4, 4], &[4, 0]),
            (8, &[(4, 8, 9, ANY), (0, 0, 9, ANY)], &[4, 4], &[4, 0]),
            (8, &[(4, 5, 9, ANY), (0, 0, 9, ANY)], &[4, 4], &[4, 3]),
            (8, &[(4, 4, 9, ANY), (3, 3, 9, ANY)], &[4, 4], &[4, 4]),
            // More runs than a lower limit allows.
            (2, &[(300, 300, 9, ANY), (300, 0, 9, ANY)], &[1, 1], &[1, 1]),
            // What runs beyond the share is reached already.
            (8, &[(0, 3, 0, ANY), (5, 5, 9, ANY)], &[3, 5], &[3, 5]),
        ] {
            assert_eq!(next_shares(limit, &queues(uses), wanted), expect, "{limit} {uses:?}");
        }
    }

    /// Whatever is delivered, ends and arrives between two looks: never more than the limit runs, and
    /// soon as much of it as is needed.
    #[test]
    fn a_limit_holds_and_is_used() {
        let mut seed = 1_u64;
        let mut random = |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 33) % below) as u32
        };
        for limit in [1, 2, 3, 8, 50] {
            for count in 1..5_usize {
                let mut uses = queues(&vec![(0, 0, 0, ANY); count]);
                for round in 0..400 {
                    let wanted = share_limit(limit, &uses, round / 20);
                    assert!(wanted.iter().sum::<u32>() <= limit, "{limit} {uses:?} {wanted:?}");
                    let next = next_shares(limit, &uses, &wanted);
                    for (queue, next) in uses.iter_mut().zip(next) {
                        // Before it is changed, it may be used up.
                        deliver(queue);
                        queue.share = next;
                    }
                    for queue in &mut uses {
                        deliver(queue);
                        queue.running -= random(u64::from(queue.running) + 1);
                        queue.waiting += random(4);
                    }
                    let running: u32 = uses.iter().map(|queue| queue.running).sum();
                    assert!(running <= limit, "{limit} {uses:?}");
                }
                // Nothing arrives any more, and nothing ends: what is free is used.
                for _ in 0..4 {
                    let next = next_shares(limit, &uses, &share_limit(limit, &uses, 0));
                    for (queue, next) in uses.iter_mut().zip(next) {
                        queue.share = next;
                        deliver(queue);
                    }
                }
                let running: u32 = uses.iter().map(|queue| queue.running).sum();
                let need: u32 = uses.iter().map(QueueUse::need).sum();
                assert_eq!(running, need.min(limit), "{limit} {uses:?}");
            }
        }
    }

    fn deliver(queue: &mut QueueUse) {
        let more = queue.share.saturating_sub(queue.running).min(queue.waiting);
        queue.running += more;
        queue.waiting -= more;
    }
}
