//! What checking a value can cost at most.
//!
//! References let a small schema ask for very much: thirty definitions, each of which refers twice to
//! the next, look at one value a thousand million times, and a definition that refers to itself twice
//! does so with each level of the value. Validators follow them all. So the cost is computed from
//! schema and depth before, as the number of schemas that look at the places along the most
//! expensive path into a value: no place is looked at by more.

use serde_json::Value;
use tasker_messages::{Problem, code};

use super::outline::{Outline, Part};

/// Deepest value that is checked: contexts and results are no deeper.
const MAX_DEPTH: usize = 64;
/// Most steps of one check; a step takes about a tenth of a microsecond.
const MAX_STEPS: u64 = 20_000_000;
/// Most schemas that look at a value inside each other: each takes a piece of the stack, up to 12 KiB
/// in a build that is not optimised.
const MAX_NESTING: u32 = 500;
/// Bytes of text that count as one more value: patterns read them.
const BYTES_PER_STEP: u64 = 16;

/// For values of one depth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// How many schemas look at the places along one path.
    looks: u64,
    /// How many of them do inside each other.
    nesting: u32,
}

/// The cost of the whole schema by depth of the value.
///
/// # Errors
/// If a schema refers to itself for the same value: such a check would not end.
pub(super) fn of(outline: &Outline) -> Result<Vec<Cost>, Vec<Problem>> {
    let order = order(&outline.parts)?;
    let mut below = vec![Cost::default(); outline.parts.len()];
    let mut costs = Vec::with_capacity(MAX_DEPTH + 1);
    for _ in 0..=MAX_DEPTH {
        let mut now = vec![Cost::default(); outline.parts.len()];
        for &at in &order {
            now[at] = cost(&outline.parts[at], &now, &below);
        }
        costs.push(now.first().copied().unwrap_or_default());
        below = now;
    }
    Ok(costs)
}

fn cost(part: &Part, now: &[Cost], below: &[Cost]) -> Cost {
    let add = |sum: u64, cost: &Cost| sum.saturating_add(cost.looks);
    let same = part.same.iter().map(|&p| &now[p]).fold(0, add);
    let times = if part.asks_twice { 2 } else { 1 };
    let inside = part.inside.iter().map(|&p| below[p].looks).max().unwrap_or(0);
    let also = part.also.iter().map(|&p| &below[p]).fold(0, add);
    let deepest = part.same.iter().map(|&p| now[p].nesting);
    let deepest = deepest.chain(part.inside.iter().chain(&part.also).map(|&p| below[p].nesting));
    let inner = inside.saturating_add(also).saturating_add(same);
    Cost {
        looks: inner.saturating_mul(times).saturating_add(1),
        nesting: deepest.max().unwrap_or(0).saturating_add(1),
    }
}

/// The parts, each after those that look at the same value.
fn order(parts: &[Part]) -> Result<Vec<usize>, Vec<Problem>> {
    let mut users = vec![Vec::new(); parts.len()];
    let mut waits: Vec<usize> = parts.iter().map(|part| part.same.len()).collect();
    for (at, part) in parts.iter().enumerate() {
        part.same.iter().for_each(|&used| users[used].push(at));
    }
    let mut order: Vec<usize> = (0..parts.len()).filter(|&at| waits[at] == 0).collect();
    let mut next = 0;
    while let Some(&used) = order.get(next) {
        next += 1;
        for &user in &users[used] {
            waits[user] -= 1;
            if waits[user] == 0 {
                order.push(user);
            }
        }
    }
    match waits.iter().position(|&waits| waits > 0) {
        None => Ok(order),
        Some(at) => {
            let message = "a reference leads back here for the same value, so that the check would \
                           not end";
            Err(vec![Problem::new(code::INVALID_SCHEMA, message).at(parts[at].pointer.as_str())])
        }
    }
}

/// The steps that checking this value takes at most, and how many schemas look at it inside each
/// other; `None` if one of them is too much.
pub(super) fn steps(costs: &[Cost], value: &Value) -> Option<(u64, u32)> {
    let (size, depth) = measure(value);
    let cost = costs.get(depth).filter(|cost| cost.nesting <= MAX_NESTING)?;
    let steps = cost.looks.checked_mul(size).filter(|&steps| steps <= MAX_STEPS)?;
    Some((steps, cost.nesting))
}

/// How much there is to look at, and how many levels there are below the whole.
fn measure(value: &Value) -> (u64, usize) {
    let text = |text: &str| text.len() as u64 / BYTES_PER_STEP;
    let inner = |(size, depth): (u64, usize), value: &Value| {
        let (s, d) = measure(value);
        (size + s, depth.max(d + 1))
    };
    match value {
        Value::String(string) => (1 + text(string), 0),
        Value::Array(list) => list.iter().fold((1, 0), inner),
        Value::Object(map) => map.iter().fold((1, 0), |all, (key, value)| {
            let (size, depth) = inner(all, value);
            (size + 1 + text(key), depth)
        }),
        _ => (1, 0),
    }
}
