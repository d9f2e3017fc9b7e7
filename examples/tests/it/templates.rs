use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tasker_examples::{TEMPLATES, registry};

/// Values of one key anywhere in a template of ours, which has one key on each line.
fn values<'a>(yaml: &'a str, key: &str) -> Vec<&'a str> {
    let value = |line: &'a str| line.trim().strip_prefix(key)?.strip_prefix(": ");
    yaml.lines().filter_map(value).collect()
}

#[test]
fn every_callable_of_a_template_is_registered() {
    let registry = registry();
    for (name, yaml) in TEMPLATES {
        let callables = values(yaml, "callable");
        assert_eq!(callables.len(), yaml.matches("handler:").count(), "{name}");
        for callable in callables {
            assert!(registry.get(callable).is_some(), "{name}: {callable}");
        }
    }
}

#[test]
fn every_template_is_embedded() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let files: BTreeSet<_> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    let embedded: BTreeSet<_> = TEMPLATES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, embedded);
}
