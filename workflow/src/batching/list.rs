//! Ranges that are spelled out, in an outcome or in pages.

use std::collections::HashSet;

use serde_json::Value;
use serde_json::value::RawValue;
use tasker_messages::{CursorConfig, Problem, code, nearest};

use super::Member;

/// Longest identifier of a member in bytes.
const MAX_BATCH_ID: usize = 64;

const KEYS: [&str; 4] = ["batch_id", "start_cursor", "end_cursor", "batch_size"];

/// Checks a list of ranges and keeps each as it was written.
pub(super) fn members(configs: &[Value], raw: &[&RawValue]) -> Result<Vec<Member>, Problem> {
    let mut members = Vec::with_capacity(configs.len());
    let mut seen = HashSet::with_capacity(configs.len());
    let mut ranges = Vec::with_capacity(configs.len());
    for (n, (config, raw)) in configs.iter().zip(raw).enumerate() {
        let range = Range::read(config).map_err(|problem| nth(n, problem))?;
        if !seen.insert(range.batch_id) {
            let message = format!("`{}` occurs twice", range.batch_id);
            return Err(nth(n, Problem::new(code::BATCH_ID_INVALID, message).at("batch_id")));
        }
        ranges.push(range.bounds);
        members.push(Member {
            batch_id: range.batch_id.to_owned(),
            cursor_json: raw.get().to_owned(),
        });
    }
    check_overlap(&ranges)?;
    Ok(members)
}

/// Checks a page of ranges that an analyzer appends. `previous` is what the page before ended with:
/// its last `batch_id`, and its last `end_cursor` if that is an integer.
///
/// Nobody remembers all ranges of a million, so order stands for uniqueness: identifiers ascend
/// (shorter ones first, then by bytes) and integer ranges follow one another, within a page and from
/// page to page.
///
/// # Errors
/// The first thing that is wrong, with the field as `cursors[n].…`.
pub fn check_page(
    previous: Option<(&str, Option<i64>)>,
    page: &[CursorConfig],
) -> Result<(), Problem> {
    let mut last_id = previous.map(|(id, _)| id);
    let mut last_end = previous.and_then(|(_, end)| end).map(i128::from);
    for (n, config) in page.iter().enumerate() {
        let fail = |problem: Problem| Err(within(&format!("cursors[{n}]"), problem));
        let range = match Range::new(&config.batch_id, &config.start_cursor, &config.end_cursor) {
            Ok(range) => range,
            Err(problem) => return fail(problem),
        };
        if let Some(last) = last_id
            && (last.len(), last) >= (config.batch_id.len(), config.batch_id.as_str())
        {
            let message = format!(
                "`{}` does not come after `{last}`; appended identifiers must ascend, shorter \
                 ones first",
                config.batch_id
            );
            return fail(Problem::new(code::BATCH_ID_INVALID, message).at("batch_id"));
        }
        if let (Some(end), Some((start, _))) = (last_end, range.bounds)
            && start < end
        {
            let message =
                format!("starts at {start}, before the end of the range before it, {end}");
            return fail(Problem::new(code::BATCH_RANGE_INVALID, message).at("start_cursor"));
        }
        last_id = Some(&config.batch_id);
        last_end = range.bounds.map(|(_, end)| end);
    }
    Ok(())
}

/// One range as far as it is judged.
struct Range<'a> {
    batch_id: &'a str,
    /// Start and end, if both are integers.
    bounds: Option<(i128, i128)>,
}

impl<'a> Range<'a> {
    fn read(config: &'a Value) -> Result<Self, Problem> {
        let invalid = |field: &str, message: String| {
            Problem::new(code::BATCH_OUTCOME_INVALID, message).at(field)
        };
        let Value::Object(keys) = config else {
            return Err(invalid("", "must be an object with a range".to_owned()));
        };
        if let Some(key) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let near = nearest(key, KEYS)
                .map_or(String::new(), |known| format!("; did you mean `{known}`?"));
            let key: String = key.chars().take(60).collect();
            return Err(invalid("", format!("unknown key {key:?}{near}")));
        }
        let get = |key| keys.get(key).ok_or_else(|| invalid(key, "is missing".to_owned()));
        let Value::String(batch_id) = get("batch_id")? else {
            return Err(Problem::new(code::BATCH_ID_INVALID, "must be a text").at("batch_id"));
        };
        let (start, end) = (get("start_cursor")?, get("end_cursor")?);
        let size = get("batch_size")?.as_u64().filter(|&size| size <= u64::from(u32::MAX));
        if size.is_none() {
            let message = format!("must be an integer from 0 to {}", u32::MAX);
            return Err(invalid("batch_size", message));
        }
        Range::new(batch_id, start, end)
    }

    fn new(batch_id: &'a str, start: &Value, end: &Value) -> Result<Self, Problem> {
        let valid = (1..=MAX_BATCH_ID).contains(&batch_id.len())
            && batch_id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if !valid {
            let shown: String = batch_id.chars().take(MAX_BATCH_ID).collect();
            let message =
                format!("{shown:?} must be 1 to {MAX_BATCH_ID} of the characters A-Z a-z 0-9 _ -");
            return Err(Problem::new(code::BATCH_ID_INVALID, message).at("batch_id"));
        }
        let bounds = integer(start).zip(integer(end));
        if let Some((start, end)) = bounds
            && start >= end
        {
            let what = if start == end { "empty" } else { "inverted" };
            let message = format!("the range from {start} to {end} is {what}");
            return Err(Problem::new(code::BATCH_RANGE_INVALID, message).at("end_cursor"));
        }
        Ok(Self { batch_id, bounds })
    }
}

pub(super) fn integer(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

/// Ranges that are all integers must not overlap, in whatever order they stand.
fn check_overlap(ranges: &[Option<(i128, i128)>]) -> Result<(), Problem> {
    let Some(bounds) = ranges.iter().copied().collect::<Option<Vec<(i128, i128)>>>() else {
        return Ok(());
    };
    let mut order: Vec<usize> = (0..bounds.len()).collect();
    order.sort_unstable_by_key(|&n| bounds[n]);
    for pair in order.windows(2) {
        let (before, after) = (bounds[pair[0]], bounds[pair[1]]);
        if after.0 < before.1 {
            let message = format!(
                "the range from {} to {} overlaps that from {} to {}",
                after.0, after.1, before.0, before.1
            );
            let problem = Problem::new(code::BATCH_RANGE_INVALID, message);
            return Err(nth(pair[1], problem.at("start_cursor")));
        }
    }
    Ok(())
}

fn nth(n: usize, problem: Problem) -> Problem {
    within(&format!("[{n}]"), problem)
}

fn within(outer: &str, problem: Problem) -> Problem {
    let dot = if problem.field.is_empty() { "" } else { "." };
    Problem { field: format!("{outer}{dot}{}", problem.field), ..problem }
}
