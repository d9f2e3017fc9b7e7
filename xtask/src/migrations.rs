//! `store/migrations`: what has been released never changes, and what follows is safe to apply while nodes
//! of the release before run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::{run, workspace};

const FOLDER: &str = "store/migrations";
/// Each migration and the id that git has for its content.
const LIST: &str = "store/migrations.txt";
/// The last migration that is older than these rules.
const LAST_FREE: u32 = 10;

pub(crate) fn check(wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let top = workspace()?;
    let mut names = Vec::new();
    for entry in fs::read_dir(top.join(FOLDER))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    check_contents(&top, &names, wrong)?;
    for (n, name) in names.iter().enumerate() {
        let Some(number) = number(name).filter(|number| *number as usize == n + 1) else {
            wrong.push(format!("{FOLDER}/{name}: {:04}_what_it_does.sql comes next", n + 1));
            continue;
        };
        let text = fs::read_to_string(top.join(FOLDER).join(name))?;
        if number > LAST_FREE {
            wrong.extend(
                faults(number, name, &text).map(|fault| format!("{FOLDER}/{name}: {fault}")),
            );
        }
    }
    Ok(())
}

/// The number that a name begins with, if it is one of a migration.
fn number(name: &str) -> Option<u32> {
    let (number, rest) = name.strip_suffix(".sql")?.split_once('_')?;
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (number.len() == 4 && rest.chars().all(is_word)).then(|| number.parse().ok())?
}

fn check_contents(top: &Path, names: &[String], wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let list = fs::read_to_string(top.join(LIST)).context(LIST)?;
    let listed: BTreeSet<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    let mut git = Command::new("git");
    git.args(["hash-object", "--no-filters", "--"]);
    let paths = names.iter().map(|name| format!("{FOLDER}/{name}"));
    let ids = run(git.args(paths).current_dir(top))?;
    let found: Vec<String> =
        ids.lines().zip(names).map(|(id, name)| format!("{id} {name}")).collect();
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    for line in listed.difference(&found) {
        let advice = "has changed or is gone; databases have it as it was: add another one instead";
        wrong.push(format!("{LIST}: {} {advice}", line.split(' ').next_back().unwrap_or(line)));
    }
    for line in found.difference(&listed) {
        wrong.push(format!("{LIST}: if this is a new migration, add the line: {line}"));
    }
    Ok(())
}

/// What would hurt nodes of the release before.
fn faults(number: u32, name: &str, text: &str) -> impl Iterator<Item = String> {
    let statements = statements(text);
    let mut faults = BTreeSet::new();
    match needed_by(name) {
        Some(needed) if needed == 0 || needed >= number => {
            faults.insert(format!("there is no step {needed} before this one"));
        }
        Some(_) => {}
        None => {
            let taken =
                statements.iter().flat_map(|statement| clauses(statement)).filter_map(taken_away);
            faults.extend(taken.map(|what| {
                format!(
                    "{what}, which older nodes may use: a step that does so is called \
                     {number:04}_contract_NNNN_…, where NNNN is the step that a node must know to do without"
                )
            }));
        }
    }
    faults.extend(statements.iter().filter_map(|statement| blocking(statement, &statements)));
    let concurrently = statements.iter().any(|s| s.iter().any(|word| word == "concurrently"));
    let alone = text.starts_with("-- no-transaction\n") && statements.len() == 1;
    if concurrently && !alone {
        let rule = "stands alone in its file, whose first line is `-- no-transaction`";
        faults.insert(format!("what is done concurrently {rule}"));
    }
    faults.into_iter()
}

/// Which step nodes must know, as the name of a contract step says.
fn needed_by(name: &str) -> Option<u32> {
    // As the migrator reads it: the name begins with this, and the number is a whole word.
    let (_, name) = name.trim_end_matches(".sql").split_once('_')?;
    name.strip_prefix("contract_")?.split('_').next()?.parse().ok()
}

/// The words of each statement, without comments.
fn statements(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().map(|line| line.split("--").next().unwrap_or(line));
    let mut spaced = lines.collect::<Vec<_>>().join("\n").to_ascii_lowercase();
    for mark in ["(", ")", ","] {
        spaced = spaced.replace(mark, &format!(" {mark} "));
    }
    let words = spaced.split(';').map(|s| s.split_whitespace().map(str::to_owned).collect());
    words.filter(|words: &Vec<String>| !words.is_empty()).collect()
}

/// A statement in the parts that commas outside of parentheses make.
fn clauses(statement: &[String]) -> Vec<Vec<&str>> {
    let (mut all, mut depth) = (vec![Vec::new()], 0);
    for word in statement.iter().map(String::as_str) {
        match word {
            "," if depth == 0 => all.push(Vec::new()),
            _ => all.last_mut().into_iter().for_each(|clause| clause.push(word)),
        }
        depth += i32::from(word == "(") - i32::from(word == ")");
    }
    all
}

/// What rules of a table begin with.
const RULES: [&str; 6] = ["check", "constraint", "unique", "primary", "foreign", "exclude"];

/// What a clause takes away from nodes that do not know of it.
fn taken_away(clause: Vec<&str>) -> Option<&'static str> {
    let has = |words: &[&str]| clause.windows(words.len()).any(|window| window == words);
    let drops = |what: &&str| !["not", "constraint", "expression", "identity"].contains(what);
    let after = |word: &str| clause.iter().position(|w| *w == word).and_then(|n| clause.get(n + 1));
    let adds_rule = clause.windows(2).any(|w| w[0] == "add" && RULES.contains(&w[1]));
    let adds = clause.contains(&"add") && !adds_rule;
    let has_value = ["default", "generated"].iter().any(|word| has(&[word]));
    let retyped = (0..clause.len()).filter(|n| clause[*n] == "alter").any(|n| {
        let column = if clause.get(n + 1) == Some(&"column") { n + 2 } else { n + 1 };
        clause.get(column + 1) == Some(&"type")
    });
    if after("drop").is_some_and(drops) || has(&["truncate"]) {
        return Some("drops something");
    }
    if has(&["rename"]) {
        return Some("renames something");
    }
    if retyped || has(&["set", "data", "type"]) {
        return Some("changes the type of a column");
    }
    if has(&["set", "not", "null"]) || adds && has(&["not", "null"]) && !has_value {
        return Some("demands a value");
    }
    adds_rule.then_some("adds a rule that rows of older nodes may break")
}

/// What keeps everybody from writing to a table for as long as its rows are read.
fn blocking(statement: &[String], all: &[Vec<String>]) -> Option<String> {
    let words: Vec<&str> = statement.iter().map(String::as_str).collect();
    let is_index =
        words.starts_with(&["create", "index"]) || words.starts_with(&["create", "unique"]);
    let table = words.iter().position(|word| *word == "on").and_then(|n| words.get(n + 1))?;
    let is_new = |s: &Vec<String>| {
        s.len() > 2 && s[..2] == ["create", "table"] && s.contains(&(*table).to_owned())
    };
    (is_index && !words.contains(&"concurrently") && !all.iter().any(is_new)).then(|| {
        format!("an index of {table}, which is there already, is to be created concurrently")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str, expect: &[&str]) {
        let found: Vec<String> = faults(12, name, text).collect();
        let fits = found.len() == expect.len()
            && found.iter().zip(expect).all(|(fault, expect)| fault.contains(expect));
        assert!(fits, "{text}: {found:?}");
    }

    #[test]
    fn steps_that_take_away_say_so() {
        for (text, expect) in [
            ("alter table t add column a int, add column b int not null default 0", ""),
            ("alter table t add column a int not null, add column b int default 0", "demands"),
            ("alter table t add a text not null generated always as (lower(b)) stored", ""),
            ("alter table t add column a int, add check (a is not null)", "adds a rule"),
            ("alter table t add constraint u unique (a)", "adds a rule"),
            ("alter table t add foreign key (a) references n (a)", "adds a rule"),
            ("create table n (a int, check (a > 0), unique (a))", ""),
            ("alter table t alter column a drop not null, drop constraint t_check", ""),
            ("alter table t add b int, alter column a set not null", "demands"),
            ("create table n (a int not null, b int)", ""),
            ("-- drop table t;\nalter type e add value 'more'", ""),
            ("alter table t drop column a", "drops"),
            ("alter table t\n  DROP\n  a", "drops"),
            ("alter table t alter a drop default", "drops"),
            ("drop index tasker.i", "drops"),
            ("create table n (a int); drop table t", "drops"),
            ("alter table t rename column a to b", "renames"),
            ("alter type e rename value 'a' to 'b'", "renames"),
            ("alter table t alter column a type bigint", "type"),
            ("alter table t alter a type bigint", "type"),
            ("alter table t alter column a set data type bigint", "type"),
        ] {
            let expect = if expect.is_empty() { vec![] } else { vec![expect] };
            check("0012_more.sql", text, &expect);
            check("0012_contract_0011_less.sql", text, &[]);
        }
        check("0012_contract_0012_less.sql", "drop table t", &["no step 12"]);
        // What the migrator does not take for a contract step is none.
        check("0012_no_contract_0011_less.sql", "drop table t", &["drops something"]);
        check("0012_contract_0011less.sql", "drop table t", &["drops something"]);
    }

    #[test]
    fn indexes_are_made_beside_the_work() {
        let plain = "create index i on tasker.t (a)";
        check("0012_i.sql", plain, &["tasker.t, which is there already"]);
        check("0012_i.sql", &format!("create table tasker.t (a int); {plain}"), &[]);
        let beside = "create unique index concurrently i on tasker.t (a);\n";
        check("0012_i.sql", &format!("-- no-transaction\n-- why\n{beside}"), &[]);
        check("0012_i.sql", beside, &["stands alone"]);
        check("0012_i.sql", &format!("-- no-transaction\n{beside} select 1"), &["stands alone"]);
    }

    #[test]
    fn names() {
        assert_eq!(number("0012_more_columns.sql"), Some(12));
        for name in ["12_more.sql", "0012.sql", "0012_More.sql", "0012_more.txt", "001a_more.sql"] {
            assert_eq!(number(name), None, "{name}");
        }
    }
}
