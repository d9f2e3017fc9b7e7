//! A batch as it would be, from an outcome that was judged but is not stored.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tasker_messages::cursor::{Pieces, member_name};
use tasker_messages::{
    BatchForecast, BatchSizes, CursorConfig, FailureStrategy, Problem, Queue, code,
};

use super::audit::{Break, MemberFacts, ranges};
use super::list::integer;
use super::{BatchPlan, Member, failure_budget};
use crate::template::{StepTemplate, Template};

/// Breaks that are told, as many as of a batch that exists.
const MAX_BREAKS: usize = 20;
/// Members of an integer range whose text is measured; the others are like them.
const MEASURED: u32 = 1_000;
/// Longest range that is shown as it is, in bytes.
const MAX_SHOWN_BYTES: usize = 2_048;

/// What the handler said besides its ranges. The outcome was judged, so that what is missing here
/// does not belong to its form.
#[derive(Deserialize)]
struct HandlerResult {
    batch_processing_outcome: Said,
}

#[derive(Deserialize, Default)]
struct Said {
    reason: Option<String>,
    total_items: Option<u64>,
}

/// Start and end of a range, if both are integers.
type Bounds = Option<(i128, i128)>;

/// The batch that an outcome would make, and what is wrong with its ranges although it would be
/// accepted. `plan` is what [`super::plan`] made of `result`; `appended` are the ranges that its
/// handler appended, checked by [`super::check_page`].
pub fn forecast(
    template: &Template,
    step: &StepTemplate,
    result: &str,
    plan: BatchPlan,
    appended: &[CursorConfig],
) -> (BatchForecast, Vec<Problem>) {
    let form = match &plan {
        BatchPlan::NoBatches => "no_batches",
        BatchPlan::List(_) => "cursor_configs",
        BatchPlan::Range(_) => "cursor_range",
        BatchPlan::Appended(_) => "cursors_appended",
    };
    let plan = match plan {
        BatchPlan::Appended(_) => BatchPlan::List(appended.iter().map(as_member).collect()),
        spelled_out => spelled_out,
    };
    let said = serde_json::from_str::<HandlerResult>(result);
    let said = said.map(|result| result.batch_processing_outcome).unwrap_or_default();
    let worker = template.worker_of(step.name.as_str());
    let worker_template = worker.map_or(String::new(), |worker| worker.name.to_string());
    let members = plan.expected();
    let config = step.batch.as_ref();
    let (sizes, problems) = measure(&plan);
    let (first, last) = ends(&plan);
    let forecast = BatchForecast {
        form: form.to_owned(),
        reason: said.reason,
        queue: worker.map_or_else(Queue::default, |worker| worker.handler.queue.clone()),
        members,
        total_items: said.total_items,
        sizes,
        parallelism: config.and_then(|config| config.parallelism),
        max_running: None,
        failure_strategy: config.map_or(FailureStrategy::default(), |c| c.failure_strategy),
        tolerated_failures: failure_budget(config, members),
        member_bytes: member_bytes(&plan, &worker_template),
        worker_template,
        first,
        last,
    };
    (forecast, problems)
}

fn as_member(config: &CursorConfig) -> Member {
    Member {
        batch_id: config.batch_id.clone(),
        // Texts, numbers and JSON values: writing them cannot fail.
        cursor_json: serde_json::to_string(config).unwrap_or_default(),
    }
}

/// The sizes of integer ranges, and whether they meet.
fn measure(plan: &BatchPlan) -> (Option<BatchSizes>, Vec<Problem>) {
    let members = match plan {
        BatchPlan::List(members) => members,
        // Made by arithmetic, without a gap.
        BatchPlan::Range(pieces) => return (Some(sizes_of_pieces(pieces)), Vec::new()),
        BatchPlan::NoBatches | BatchPlan::Appended(_) => return (None, Vec::new()),
    };
    let bounds: Vec<(&str, Bounds)> =
        members.iter().map(|member| (member.batch_id.as_str(), bounds(member))).collect();
    let known: Vec<(i128, i128)> = bounds.iter().filter_map(|(_, bounds)| *bounds).collect();
    let facts = MemberFacts {
        members: members.len() as u64,
        number_ranges: known.len() as u64,
        breaks: breaks(&bounds),
        ..MemberFacts::default()
    };
    let problem = |message: String| Problem::new(code::BATCH_RANGE_GAP, message).at("ranges");
    let broken = ranges(&facts).filter(|check| !check.ok).map(|check| problem(check.message));
    let sizes = if known.len() == members.len() { sizes(&known) } else { None };
    (sizes, broken.into_iter().collect())
}

fn bounds(member: &Member) -> Bounds {
    #[derive(Deserialize)]
    struct Cursors {
        start_cursor: Value,
        end_cursor: Value,
    }
    let cursors: Cursors = serde_json::from_str(&member.cursor_json).ok()?;
    integer(&cursors.start_cursor).zip(integer(&cursors.end_cursor))
}

/// The first places where a range does not begin at the furthest end of those before it, as the
/// audit of a batch that exists finds them.
fn breaks(bounds: &[(&str, Bounds)]) -> Vec<Break> {
    let mut order: Vec<(i128, i128, &str)> =
        bounds.iter().filter_map(|(id, b)| b.map(|(start, end)| (start, end, *id))).collect();
    order.sort_unstable();
    let mut breaks = Vec::new();
    let mut before: Option<i128> = None;
    for (start, end, id) in order {
        if let Some(before) = before
            && before != start
            && breaks.len() < MAX_BREAKS
        {
            breaks.push(Break {
                batch_id: id.to_owned(),
                end: before.to_string(),
                start: start.to_string(),
                overlaps: start < before,
            });
        }
        before = before.max(Some(end));
    }
    breaks
}

fn sizes(bounds: &[(i128, i128)]) -> Option<BatchSizes> {
    let mut sizes: Vec<u64> =
        bounds.iter().map(|(start, end)| u64::try_from(end - start).unwrap_or(u64::MAX)).collect();
    sizes.sort_unstable();
    let median = *sizes.get(sizes.len().checked_sub(1)? / 2)?;
    Some(BatchSizes { min: *sizes.first()?, median, max: *sizes.last()? })
}

/// Of pieces of one size, of which the last may be shorter: there may be ten million of them.
fn sizes_of_pieces(pieces: &Pieces) -> BatchSizes {
    let size = |n: u32| {
        let (start, end) = pieces.bounds(n);
        end - start
    };
    let (max, min) = (size(0), size(pieces.count() - 1));
    let median = if pieces.count() == 2 { min } else { max };
    BatchSizes { min, median, max }
}

fn member_bytes(plan: &BatchPlan, worker: &str) -> u64 {
    let bytes = |member: &Member| {
        (member_name(worker, &member.batch_id).len() + member.cursor_json.len()) as u64
    };
    if let BatchPlan::List(members) = plan {
        return members.iter().map(bytes).sum();
    }
    let all = plan.expected();
    let measured = all.min(MEASURED);
    let nth = |n: u32| (u64::from(n) * u64::from(all) / u64::from(measured.max(1))) as u32;
    let sum: u64 = (0..measured).filter_map(|n| plan.member(nth(n))).map(|m| bytes(&m)).sum();
    sum * u64::from(all) / u64::from(measured.max(1))
}

/// The ranges at both ends.
fn ends(plan: &BatchPlan) -> (Vec<Box<RawValue>>, Vec<Box<RawValue>>) {
    if plan.is_no_op() {
        return (Vec::new(), Vec::new());
    }
    let all = plan.expected();
    let first = all.min(BatchForecast::SHOWN);
    let last = all.saturating_sub(BatchForecast::SHOWN).max(first);
    let shown = |n: u32| {
        let member = plan.member(n)?;
        match member.cursor_json.len() {
            0..=MAX_SHOWN_BYTES => RawValue::from_string(member.cursor_json).ok(),
            bytes => {
                let left_out = format!("{bytes} bytes, not shown");
                to_raw_value(&serde_json::json!({"batch_id": member.batch_id, "range": left_out}))
                    .ok()
            }
        }
    };
    ((0..first).filter_map(shown).collect(), (last..all).filter_map(shown).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tasker_messages::cursor::create_cursor_configs;

    use super::*;
    use crate::batching::plan;

    const TEMPLATE: &str = "name: t\nnamespace_name: n\nversion: 1.0.0\nsteps:\n\
        - {name: split, type: batchable, handler: {callable: x}, batch_config: {parallelism: 7, \
           failure_strategy: fail_fast, tolerated_failures: {percentage: 10}}}\n\
        - {name: work, type: batch_worker, dependencies: [split], handler: {callable: x, queue: gpu}}\n\
        - {name: join, type: deferred_convergence, dependencies: [work], handler: {callable: x}}\n";

    fn foresee(outcome: Value, appended: &[CursorConfig]) -> (BatchForecast, Vec<Problem>) {
        let template = Template::parse(TEMPLATE.as_bytes()).expect("a template");
        let (_, step) = template.step("split").expect("a step");
        let result = json!({"batch_processing_outcome": outcome}).to_string();
        let count = (!appended.is_empty()).then_some(appended.len() as u32);
        let plan = plan(&template, step, &result, count, 10_000_000).expect("a good outcome");
        forecast(&template, step, &result, plan, appended)
    }

    fn create(count: u32, total: u64, form: &str, ranges: Value) -> Value {
        json!({"type": "create_batches", "worker_template_name": "work", "worker_count": count,
            "total_items": total, form: ranges})
    }

    fn ids(ranges: &[Box<RawValue>]) -> Vec<String> {
        let id = |range: &RawValue| {
            let range: Value = serde_json::from_str(range.get()).expect("JSON");
            range["batch_id"].as_str().unwrap_or_default().to_owned()
        };
        ranges.iter().map(|range| id(range)).collect()
    }

    fn range(id: &str, start: u64, end: u64) -> Value {
        json!({"batch_id": id, "start_cursor": start, "end_cursor": end, "batch_size": 1})
    }

    #[test]
    fn all_forms_make_the_same_batch() {
        let listed = create_cursor_configs(23, 12);
        let list = create(12, 23, "cursor_configs", json!(listed));
        let appended = create(12, 23, "cursors_appended", json!(12));
        let range = json!({"start": 0, "end": 23, "batch_size": 2});
        let range = create(12, 23, "cursor_range", range);
        let forecasts = [
            ("cursor_configs", list, &[][..]),
            ("cursor_range", range, &[]),
            ("cursors_appended", appended, &listed),
        ];
        for (form, outcome, appended) in forecasts {
            let (batch, problems) = foresee(outcome, appended);
            assert_eq!((batch.form.as_str(), problems), (form, Vec::new()));
            assert_eq!((batch.members, batch.total_items, batch.reason), (12, Some(23), None));
            assert_eq!(batch.sizes, Some(BatchSizes { min: 1, median: 2, max: 2 }), "{form}");
            assert_eq!((batch.worker_template.as_str(), batch.queue.as_str()), ("work", "gpu"));
            assert_eq!((batch.parallelism, batch.max_running), (Some(7), None));
            assert_eq!(batch.failure_strategy, FailureStrategy::FailFast);
            // Ten percent of twelve, rounded down.
            assert_eq!(batch.tolerated_failures, 1);
            assert_eq!(ids(&batch.first), ["001", "002", "003", "004", "005"]);
            assert_eq!(ids(&batch.last), ["008", "009", "010", "011", "012"]);
            let text = "work_001{\"batch_id\":\"001\",\"start_cursor\":0,\"end_cursor\":2,\"batch_size\":2}";
            let two_digits = 7 * 2 + 1;
            assert_eq!(batch.member_bytes, 12 * text.len() as u64 + two_digits, "{form}");
        }
    }

    #[test]
    fn ends_do_not_overlap_and_nothing_is_left_out_of_few() {
        for (count, first, last) in [(1, 1, 0), (5, 5, 0), (6, 5, 1), (10, 5, 5), (11, 5, 5)] {
            let range = json!({"start": 0, "end": count, "batch_size": 1});
            let (batch, _) = foresee(create(count, 1, "cursor_range", range), &[]);
            assert_eq!((batch.first.len(), batch.last.len()), (first, last), "{count}");
        }
        let long = "x".repeat(MAX_SHOWN_BYTES);
        let ranges =
            json!([{"batch_id": "a", "start_cursor": long, "end_cursor": "y", "batch_size": 1}]);
        let (batch, _) = foresee(create(1, 1, "cursor_configs", ranges), &[]);
        assert_eq!(ids(&batch.first), ["a"]);
        assert!(batch.first[0].get().len() < 100, "{:?}", batch.first);
    }

    #[test]
    fn many_pieces_cost_nothing() {
        let range = json!({"start": 5, "end": 9_999_999_995_u64, "batch_size": 1_000});
        let (batch, _) = foresee(create(10_000_000, 1, "cursor_range", range), &[]);
        assert_eq!(batch.sizes, Some(BatchSizes { min: 990, median: 1_000, max: 1_000 }));
        let each = batch.member_bytes / 10_000_000;
        assert!((85..=105).contains(&each), "{each}");
        let two = json!({"start": 0, "end": 15, "batch_size": 10});
        let (batch, _) = foresee(create(2, 15, "cursor_range", two), &[]);
        assert_eq!(batch.sizes, Some(BatchSizes { min: 5, median: 5, max: 10 }));
    }

    #[test]
    fn gaps_are_told_whatever_the_order() {
        let ranges = json!([range("c", 30, 40), range("a", 0, 10), range("b", 10, 20)]);
        let (batch, problems) = foresee(create(3, 30, "cursor_configs", ranges), &[]);
        assert_eq!(batch.sizes.map(|sizes| sizes.median), Some(10));
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!((problem.code.as_str(), problem.field.as_str()), ("BATCH_RANGE_GAP", "ranges"));
        assert_eq!(problem.message, "c leaves a gap: it starts at 30, that one ends at 20");
        // Cursors of other kinds have no sizes, and nobody knows whether they meet.
        let ranges = json!([range("a", 0, 10), {"batch_id": "b", "start_cursor": "m",
            "end_cursor": "z", "batch_size": 3}]);
        let (batch, problems) = foresee(create(2, 30, "cursor_configs", ranges), &[]);
        assert_eq!((batch.sizes, problems), (None, Vec::new()));
    }

    #[test]
    fn nothing_to_do() {
        let (batch, problems) = foresee(json!({"type": "no_batches", "reason": "empty"}), &[]);
        assert_eq!((batch.form.as_str(), batch.reason.as_deref()), ("no_batches", Some("empty")));
        assert_eq!((batch.members, batch.total_items, batch.sizes), (1, None, None));
        assert_eq!((batch.first.len(), batch.last.len(), problems), (0, 0, Vec::new()));
    }
}
