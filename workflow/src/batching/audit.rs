//! Whether a batch's members are what the batch says of them.

use tasker_messages::{BatchView, Check};

/// What the rows of a batch's members add up to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberFacts {
    /// Whether the batch was ever sealed.
    pub sealed: bool,
    /// Rows.
    pub members: u64,
    /// Rows whose ordinal is below the number that the batch declares.
    pub in_range: u64,
    /// Different `batch_id`s.
    pub batch_ids: u64,
    /// Outcomes that count as success.
    pub succeeded: u64,
    /// Outcomes that are errors.
    pub failed: u64,
    /// Outcomes of a stop.
    pub cancelled: u64,
    /// Outcomes of an attempt that the step never had, and attempts that failed and succeeded as well.
    pub unfenced: u64,
    /// Members whose cursors are numbers.
    pub number_ranges: u64,
    /// The first places where one range of numbers does not begin at the end of the one before.
    pub breaks: Vec<Break>,
}

/// Two neighbouring ranges that do not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The later one's `batch_id`.
    pub batch_id: String,
    /// Where the earlier one ends.
    pub end: String,
    /// Where the later one starts.
    pub start: String,
    /// Whether they overlap; else there is a gap.
    pub overlaps: bool,
}

/// Holds a batch against its members. One that was never sealed has members that nobody has seen: they
/// are being written, or removed after a cancel.
pub fn audit(batch: &BatchView, facts: &MemberFacts) -> Vec<Check> {
    let expected = u64::from(batch.expected);
    if !facts.sealed {
        let message = format!("not sealed: {} of {expected} members are there", facts.members);
        let ok = facts.members <= expected && facts.in_range == facts.members;
        return vec![check("members", ok, message)];
    }
    let mut checks = vec![members(expected, facts), counters(batch, facts)];
    let message = match facts.unfenced {
        0 => "each outcome is that of one attempt that its member had".to_owned(),
        n => format!("{n} outcomes are of attempts that their members never had, or that failed"),
    };
    checks.push(check("attempts", facts.unfenced == 0, message));
    if !batch.is_no_op {
        let message =
            format!("{} different batch ids in {} members", facts.batch_ids, facts.members);
        checks.push(check("batch_ids", facts.batch_ids == facts.members, message));
        checks.extend(ranges(facts));
    }
    checks
}

fn check(name: &str, ok: bool, message: String) -> Check {
    Check { name: name.to_owned(), ok, message }
}

fn members(expected: u64, facts: &MemberFacts) -> Check {
    let complete = facts.members == expected && facts.in_range == expected;
    let message = format!(
        "{} members, {} of them within the {expected} that are declared",
        facts.members, facts.in_range
    );
    check("members", complete, message)
}

fn counters(batch: &BatchView, facts: &MemberFacts) -> Check {
    let BatchView { expected, succeeded, failed, remaining, .. } = *batch;
    let open = facts.members.saturating_sub(facts.succeeded + facts.failed + facts.cancelled);
    let counted = (u64::from(succeeded), u64::from(failed), u64::from(remaining));
    let ok = counted == (facts.succeeded, facts.failed, open);
    let message = format!(
        "of {expected} members the batch counts {succeeded} succeeded, {failed} failed, {remaining} \
         remaining; their outcomes are {} succeeded, {} failed, {} cancelled, {open} without one",
        facts.succeeded, facts.failed, facts.cancelled
    );
    check("counters", ok, message)
}

/// Ranges of numbers can be compared; what other cursors mean is known to the handlers alone.
pub(super) fn ranges(facts: &MemberFacts) -> Option<Check> {
    if facts.number_ranges != facts.members || facts.members == 0 {
        return None;
    }
    let broken = |b: &Break| {
        let what = if b.overlaps { "overlaps the range before it" } else { "leaves a gap" };
        format!("{} {what}: it starts at {}, that one ends at {}", b.batch_id, b.start, b.end)
    };
    let broken: Vec<String> = facts.breaks.iter().map(broken).collect();
    let message = match broken.is_empty() {
        true => format!("{} ranges without gap or overlap", facts.members),
        false => broken.join("; "),
    };
    Some(check("ranges", broken.is_empty(), message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn batch(state: &str, succeeded: u32, failed: u32, remaining: u32) -> BatchView {
        let batch = json!({"id": "0190a0a0-0000-7000-8000-000000000000", "batchable_step": "s",
            "worker_template": "w", "state": state, "expected": 4, "published": 4,
            "succeeded": succeeded, "failed": failed, "remaining": remaining, "is_no_op": false});
        serde_json::from_value(batch).expect("a batch")
    }

    fn sound() -> MemberFacts {
        MemberFacts {
            sealed: true,
            members: 4,
            in_range: 4,
            batch_ids: 4,
            succeeded: 2,
            failed: 1,
            number_ranges: 4,
            ..MemberFacts::default()
        }
    }

    fn failing(batch: &BatchView, facts: &MemberFacts) -> Vec<String> {
        audit(batch, facts).into_iter().filter(|c| !c.ok).map(|c| c.name).collect()
    }

    #[test]
    fn each_check_can_fail() {
        let half = batch("sealed", 2, 1, 1);
        let names: Vec<String> = audit(&half, &sound()).into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["members", "counters", "attempts", "batch_ids", "ranges"]);
        let nothing: [&str; 0] = [];
        assert_eq!(failing(&half, &sound()), nothing);
        let table: [(MemberFacts, &[&str]); 6] = [
            (
                MemberFacts { members: 3, batch_ids: 3, number_ranges: 3, ..sound() },
                &["members", "counters"],
            ),
            (MemberFacts { in_range: 3, ..sound() }, &["members"]),
            (MemberFacts { succeeded: 3, ..sound() }, &["counters"]),
            (MemberFacts { cancelled: 1, ..sound() }, &["counters"]),
            (MemberFacts { unfenced: 1, ..sound() }, &["attempts"]),
            (MemberFacts { batch_ids: 3, ..sound() }, &["batch_ids"]),
        ];
        for (facts, expect) in table {
            assert_eq!(failing(&half, &facts), expect, "{facts:?}");
        }
    }

    #[test]
    fn ranges_that_do_not_meet_are_named() {
        let place = |overlaps| Break {
            batch_id: "003".to_owned(),
            start: "20".to_owned(),
            end: "10".to_owned(),
            overlaps,
        };
        let half = batch("sealed", 2, 1, 1);
        let facts = MemberFacts { breaks: vec![place(false), place(true)], ..sound() };
        let last = audit(&half, &facts).pop().expect("checks");
        assert_eq!((last.name.as_str(), last.ok), ("ranges", false));
        assert_eq!(
            last.message,
            "003 leaves a gap: it starts at 20, that one ends at 10; 003 overlaps the range before it: \
             it starts at 20, that one ends at 10"
        );
        // Cursors of other kinds cannot be compared.
        let facts = MemberFacts { number_ranges: 3, breaks: facts.breaks, ..sound() };
        assert_eq!(failing(&half, &facts), [""; 0]);
    }

    #[test]
    fn a_batch_that_nobody_has_seen() {
        let expanding = batch("expanding", 0, 0, 4);
        let half = MemberFacts { sealed: false, members: 2, in_range: 2, ..MemberFacts::default() };
        assert_eq!(failing(&expanding, &half), [""; 0]);
        let more = MemberFacts { members: 5, in_range: 4, ..half };
        assert_eq!(failing(&expanding, &more), ["members"]);
    }
}
