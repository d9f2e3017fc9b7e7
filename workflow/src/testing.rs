use crate::Template;

/// A template out of lines such as `join deferred_convergence work other`: name, type, parents.
/// `b`, `w`, `j`, `d` and `-` stand for the five types.
pub(crate) fn template(steps: &[&str]) -> Template {
    let mut source = "name: test\nnamespace_name: tests\nversion: 1.0.0\nsteps:\n".to_owned();
    for step in steps {
        let mut words = step.split_whitespace();
        let name = words.next().unwrap_or_default();
        let kind = match words.next() {
            Some("b") => "batchable",
            Some("w") => "batch_worker",
            Some("j") => "deferred_convergence",
            Some("d") => "decision",
            _ => "standard",
        };
        let parents = words.collect::<Vec<_>>().join(", ");
        source.push_str(&format!(
            "- {{name: {name}, type: {kind}, dependencies: [{parents}], handler: {{callable: x}}}}\n"
        ));
    }
    Template::parse(source.as_bytes()).unwrap_or_else(|problems| panic!("{steps:?}: {problems:?}"))
}

/// Planned steps as `name pending_parents marks <- parents`, marks being `ready` and `unsettled`.
pub(crate) fn shown(template: &Template, steps: &[crate::PlannedStep]) -> Vec<String> {
    let row = |planned: &crate::PlannedStep| {
        let mut row = format!("{} {}", template.steps[planned.step].name, planned.pending_parents);
        row.push_str(if planned.ready { " ready" } else { "" });
        row.push_str(if planned.unsettled { " unsettled" } else { "" });
        if !planned.parents.is_empty() {
            let parents: Vec<&str> = planned.parents.iter().map(|p| p.as_str()).collect();
            row.push_str(&format!(" <- {}", parents.join(" ")));
        }
        row
    };
    steps.iter().map(row).collect()
}
