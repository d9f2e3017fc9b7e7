use super::*;
use crate::testing::{shown, template};

/// Facts out of words: `a` has a row, `a+` and `a-` have ended well and badly, `w=2/1/0` is a sealed
/// batch with remaining / succeeded / failed.
fn facts(words: &str) -> TaskFacts {
    let mut facts = TaskFacts::default();
    for word in words.split_whitespace() {
        if let Some((worker, numbers)) = word.split_once('=') {
            let numbers: Vec<u32> =
                numbers.split('/').map(|n| n.parse().expect("a number")).collect();
            let [remaining, succeeded, failed] = numbers[..] else { panic!("{word}") };
            facts.batches.insert(worker.to_owned(), BatchFact { remaining, succeeded, failed });
            continue;
        }
        let ended = match word.chars().last() {
            Some('+') => Some(Ending::Succeeded),
            Some('-') => Some(Ending::Failed),
            _ => None,
        };
        facts.steps.insert(word.trim_end_matches(['+', '-']).to_owned(), StepFact { ended });
    }
    facts
}

/// `expect` is what is created, then the names of what is blocked as `!name`.
fn check(steps: &[&str], words: &str, expect: &[&str]) {
    let template = template(steps);
    let plan = converge(&template, &facts(words));
    let mut got = shown(&template, &plan.create);
    got.extend(plan.blocked.iter().map(|&n| format!("!{}", template.steps[n].name)));
    assert_eq!(got, expect, "{steps:?} {words}");
    assert_eq!(plan, converge(&template, &facts(words)), "the same facts, the same plan");

    // What a plan creates is not created again.
    let mut later = facts(words);
    for planned in &plan.create {
        later.steps.insert(template.steps[planned.step].name.to_string(), StepFact::default());
    }
    assert_eq!(converge(&template, &later).create, [], "{steps:?} {words}");
}

#[test]
fn one_batch() {
    let steps = ["s b", "w w s", "j j w"];
    check(&steps, "s", &[]);
    // The analyzer has ended, its batch is not sealed.
    check(&steps, "s+", &[]);
    check(&steps, "s+ w=3/0/0", &[]);
    check(&steps, "s+ w=1/2/0", &[]);
    check(&steps, "s+ w=0/3/0", &["j 0 ready"]);
    check(&steps, "s+ w=0/1/2", &["j 0 ready"]);
    check(&steps, "s+ w=0/3/0 j", &[]);
    check(&steps, "s+ w=0/3/0 j+", &[]);
    // No join passes on an empty set.
    check(&steps, "s+ w=0/0/3", &["!j"]);
    check(&steps, "s-", &["!j"]);
    check(&steps, "", &[]);
}

#[test]
fn static_and_batch_parents() {
    let steps = ["a -", "s b", "w w s", "j j a w"];
    check(&steps, "a s+ w=0/1/0", &[]);
    check(&steps, "a+ s+ w=1/1/0", &[]);
    check(&steps, "s+ w=0/1/0", &[]);
    check(&steps, "a+ s+ w=0/1/0", &["j 0 ready <- a"]);
    // A convergence sees failures; it needs members.
    check(&steps, "a- s+ w=0/1/0", &["j 0 ready <- a"]);
    check(&steps, "a+ s+ w=0/0/1", &["!j"]);
    check(&steps, "a+ s-", &["!j"]);
    check(&steps, "a s-", &[]);
    check(&steps, "a- s-", &["!j"]);
}

#[test]
fn static_parents_only() {
    let steps = ["a -", "b -", "j j a b", "x - j"];
    check(&steps, "a b", &[]);
    check(&steps, "a+ b", &[]);
    check(&steps, "a+ b+", &["j 0 ready <- a b", "x 1 <- j"]);
    check(&steps, "a- b+", &["j 0 ready <- a b", "x 1 <- j"]);
    check(&steps, "a- b-", &["!j"]);
}

#[test]
fn two_batches() {
    let steps = ["s b", "w w s", "t b", "v w t", "j j w v"];
    check(&steps, "s+ w=0/1/0 t", &[]);
    check(&steps, "s+ w=0/1/0 t+", &[]);
    check(&steps, "s+ w=0/1/0 t+ v=1/0/0", &[]);
    check(&steps, "s+ w=0/1/0 t+ v=0/1/0", &["j 0 ready"]);
    check(&steps, "s+ w=0/0/1 t+ v=0/1/0", &["j 0 ready"]);
    check(&steps, "s- t+ v=0/1/0", &["j 0 ready"]);
    check(&steps, "s- t+", &[]);
    check(&steps, "s- t+ v=0/0/9", &["!j"]);
    check(&steps, "s- t-", &["!j"]);
    // Two convergences on one batch.
    let steps = ["s b", "w w s", "j j w", "k j w"];
    check(&steps, "s+ w=0/1/0", &["j 0 ready", "k 0 ready"]);
    check(&steps, "s+ w=0/1/0 k", &["j 0 ready"]);
}

#[test]
fn descendants_come_along() {
    let done = "s+ w=0/1/0";
    check(
        &["s b", "w w s", "j j w", "x - j", "y - x", "z j x y"],
        done,
        // x and y are declared by the convergence z, which comes when they have ended.
        &["j 0 ready", "x 1 unsettled <- j", "y 1 unsettled <- x"],
    );
    // A static parent that has succeeded is not waited for; a failed one is.
    let steps = ["a -", "s b", "w w s", "j j w", "x - j a"];
    check(&steps, "a+ s+ w=0/1/0", &["j 0 ready", "x 1 <- j a"]);
    check(&steps, "a s+ w=0/1/0", &["j 0 ready", "x 2 <- j a"]);
    check(&steps, "a- s+ w=0/1/0", &["j 0 ready", "x 2 <- j a"]);
    let steps = ["a -", "s b", "w w s", "j j w", "k j j a"];
    check(&steps, "a- s+ w=0/1/0", &["j 0 ready unsettled"]);
    check(&steps, "a- s+ w=0/1/0 j", &[]);
    check(&steps, "a- s+ w=0/1/0 j+", &["k 0 ready <- j a"]);
    // The order of the document need not be that of the graph.
    check(
        &["y - x", "x - j", "j j w", "w w s", "s b"],
        done,
        &["y 1 <- x", "x 1 <- j", "j 0 ready"],
    );
    // Nothing comes along behind a convergence that is blocked.
    check(&["s b", "w w s", "j j w", "x - j"], "s+ w=0/0/1", &["!j"]);
}

#[test]
fn what_needs_more_than_one_batch_comes_with_the_last() {
    let steps = ["s b", "w w s", "j j w", "t b", "v w t", "k j v", "x - j k"];
    check(&steps, "s+ w=0/1/0 t+ v=1/0/0", &["j 0 ready"]);
    check(&steps, "s+ w=0/1/0 j t+ v=0/1/0", &["k 0 ready", "x 2 <- j k"]);
    check(&steps, "s+ w=0/1/0 j+ t+ v=0/1/0", &["k 0 ready", "x 1 <- j k"]);
    check(&steps, "s+ w=0/1/0 t+ v=0/1/0", &["j 0 ready", "k 0 ready", "x 2 <- j k"]);
    check(&steps, "s+ w=0/0/1 t+ v=0/1/0", &["k 0 ready", "!j"]);
}

#[test]
fn a_batch_behind_a_batch() {
    let steps = ["s b", "w w s", "j j w", "t b j", "v w t", "k j v j"];
    // The second analyzer comes along; its members and their convergence do not.
    check(&steps, "s+ w=0/1/0", &["j 0 ready unsettled", "t 1 unsettled <- j"]);
    check(&steps, "s+ w=0/1/0 j+ t", &[]);
    check(&steps, "s+ w=0/1/0 j+ t+", &[]);
    check(&steps, "s+ w=0/1/0 j+ t+ v=0/2/0", &["k 0 ready <- j"]);
    check(&steps, "s+ w=0/1/0 j+ t-", &["!k"]);
    check(&steps, "s+ w=0/1/0 j- t", &[]);
}
