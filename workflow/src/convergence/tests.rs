use super::*;
use crate::testing::{shown, template};

/// Facts out of words: `a` has a row, `a+` and `a-` have ended well and badly, `w=2/1/0` is a sealed
/// batch with remaining / succeeded / failed, `w=0/1/2!` one that was stopped, `d:x,y` is a decision that has chosen `x` and `y`, and
/// `d::x` one whose choice was acted on.
fn facts(words: &str) -> TaskFacts {
    let mut facts = TaskFacts::default();
    for word in words.split_whitespace() {
        if let Some((worker, numbers)) = word.split_once('=') {
            let stopped = numbers.ends_with('!');
            let numbers = numbers.trim_end_matches('!').split('/');
            let numbers: Vec<u32> = numbers.map(|n| n.parse().expect("a number")).collect();
            let [remaining, succeeded, failed] = numbers[..] else { panic!("{word}") };
            let fact = BatchFact { remaining, succeeded, failed, stopped };
            facts.batches.insert(worker.to_owned(), fact);
            continue;
        }
        if let Some((decision, names)) = word.split_once(':') {
            let settled = names.starts_with(':');
            let names = names.trim_start_matches(':').split(',').filter(|name| !name.is_empty());
            let steps = names.map(str::to_owned).collect();
            facts.choices.insert(decision.to_owned(), Choice { steps, settled });
            let ended = Some(Ending::Succeeded);
            facts.steps.insert(decision.to_owned(), StepFact { ended });
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

/// `expect` is what is created, then what is blocked as `!name` and what never exists as `~name`.
fn check(steps: &[&str], words: &str, expect: &[&str]) {
    let template = template(steps);
    let plan = converge(&template, &facts(words));
    let mut got = shown(&template, &plan.create);
    got.extend(plan.blocked.iter().map(|&n| format!("!{}", template.steps[n].name)));
    got.extend(plan.never.iter().map(|&n| format!("~{}", template.steps[n].name)));
    assert_eq!(got, expect, "{steps:?} {words}");
    assert_eq!(plan, converge(&template, &facts(words)), "the same facts, the same plan");

    // What a plan creates is not created again.
    let mut later = facts(words);
    for planned in &plan.create {
        later.steps.insert(template.steps[planned.step].name.to_string(), StepFact::default());
    }
    later.choices.values_mut().for_each(|choice| choice.settled = true);
    let again = converge(&template, &later);
    assert_eq!((again.create, again.never), (vec![], vec![]), "{steps:?} {words}");
}

#[test]
fn branches() {
    let steps = ["a -", "d d a", "x - d", "y - d", "j j x y", "k - j"];
    check(&steps, "a d", &[]);
    check(&steps, "a+ d+", &[]);
    check(&steps, "a+ d:x", &["x 0 ready unsettled <- d", "~y"]);
    check(&steps, "a+ d:x,y", &["x 0 ready unsettled <- d", "y 0 ready unsettled <- d"]);
    // Nothing is chosen: what would have joined the branches never exists, nor what is behind it.
    check(&steps, "a+ d:", &["~x", "~y", "~j", "~k"]);
    check(&steps, "a+ d:: ", &[]);
    // The join waits for exactly those that were created.
    check(&steps, "a+ d::x x", &[]);
    check(&steps, "a+ d::x x+", &["j 0 ready <- x", "k 1 <- j"]);
    check(&steps, "a+ d::x x-", &["!j"]);
    check(&steps, "a+ d::x,y x+ y", &[]);
    check(&steps, "a+ d::x,y x+ y-", &["j 0 ready <- x y", "k 1 <- j"]);
    // A failed decision is a failed parent of what it would have created.
    check(&steps, "a+ d-", &["!j"]);
}

#[test]
fn what_is_behind_a_branch() {
    let steps = ["d d", "x - d", "y - x", "z - y d", "other -", "v - x other"];
    check(&steps, "d:x,z other", &["x 0 ready <- d", "y 1 <- x", "z 1 <- y d", "v 2 <- x other"]);
    // Never is transitive: z needs a branch and was not named itself.
    check(&steps, "d:x other+", &["x 0 ready <- d", "y 1 <- x", "v 1 <- x other", "~z"]);
    check(&steps, "d: other", &["~x", "~y", "~z", "~v"]);
    // A join that declares the decision itself runs without any branch.
    check(&["d d", "x - d", "j j x d"], "d:", &["j 0 ready <- d", "~x"]);
}

#[test]
fn decisions_behind_decisions() {
    let steps = ["d d", "e d d", "x - e", "y - d", "j j x y"];
    check(&steps, "d:e", &["e 0 ready unsettled <- d", "~y"]);
    check(&steps, "d::e e:x", &["x 0 ready unsettled <- e"]);
    check(&steps, "d::e e:", &["~x", "~j"]);
    check(&steps, "d:y", &["y 0 ready unsettled <- d", "~e", "~x"]);
    check(&steps, "d::y y+", &["j 0 ready <- y"]);
    // Two decisions must both name a step that depends on both.
    let steps = ["d d", "e d", "x - d e", "y - d", "z - e"];
    check(&steps, "d:x e", &["~y"]);
    check(&steps, "d::x e:x", &["x 0 ready <- d e", "~z"]);
    check(&steps, "d::x e:z", &["z 0 ready <- e", "~x"]);
    check(&steps, "d:y e", &["y 0 ready <- d", "~x"]);
    check(&steps, "d:y e-", &["y 0 ready <- d", "~x"]);
}

#[test]
fn a_decision_that_creates_a_batch() {
    let steps = ["d d", "s b d", "w w s", "t b d", "v w t", "j j w", "k j v", "l j w v"];
    check(&steps, "d:s", &["s 0 ready unsettled <- d", "~t", "~k"]);
    check(&steps, "d::s s+", &[]);
    check(&steps, "d::s s+ w=1/1/0", &[]);
    check(&steps, "d::s s+ w=0/2/0", &["j 0 ready", "l 0 ready"]);
    check(&steps, "d::s s+ w=0/0/2", &["!j", "!l"]);
    check(&steps, "d::s s-", &["!j", "!l"]);
    check(&steps, "d:", &["~s", "~t", "~j", "~k", "~l"]);
    check(&steps, "d-", &["!j", "!k", "!l"]);
    // A static parent beside a batch that never exists.
    let steps = ["a -", "d d", "s b d", "w w s", "j j a w", "x - d"];
    check(&steps, "a+ d:x", &["j 0 ready <- a", "x 0 ready <- d", "~s"]);
    check(&steps, "a- d:x", &["x 0 ready <- d", "!j", "~s"]);
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
    // What was stopped is not aggregated, however much of it succeeded.
    check(&steps, "s+ w=2/5/2!", &[]);
    check(&steps, "s+ w=0/5/2!", &["!j"]);
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
    // One that was stopped holds up what joins both.
    check(&steps, "s+ w=0/3/2! t+ v=1/0/0", &[]);
    check(&steps, "s+ w=0/3/2! t+ v=0/1/0", &["!j"]);
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
