use std::path::Path;

use serde_json::json;
use tasker_messages::Problem;

use crate::exit::{Code, Exit};
use crate::nodes;
use crate::output::{self, Format};
use crate::table::printable;

/// Prints what is wrong with a template, one line each as compilers do it.
pub(super) fn run(file: &Path, yaml: &[u8], format: Format) -> anyhow::Result<()> {
    let result = nodes::lint(yaml);
    output::print(&render(file, &result, format))?;
    result.map(drop).map_err(|_| Exit::quietly(Code::NotVerified).into())
}

fn render(file: &Path, result: &Result<String, Vec<Problem>>, format: Format) -> String {
    let file = file.display();
    match (format, result) {
        (Format::Table, Ok(template)) => format!("{file}: ok ({template})"),
        (Format::Table, Err(problems)) => problems
            .iter()
            .map(|problem| {
                let line = problem.line.map_or(String::new(), |line| format!(":{line}"));
                let mut rest = problem.clone();
                rest.line = None;
                format!("{file}{line}: {}\n", printable(&rest.to_string()))
            })
            .collect(),
        (Format::Json, Ok(template)) => {
            json!({"valid": true, "template": template, "problems": []}).to_string()
        }
        (Format::Json, Err(problems)) => json!({"valid": false, "problems": problems}).to_string(),
        (Format::Ids, Ok(template)) => template.clone(),
        (Format::Ids, Err(_)) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_printed_with_file_and_line() {
        let problem = Problem::new("UNKNOWN_KEY", "unknown key `x`").at("steps[0].x");
        let check = |result: Result<&str, &Problem>, format: Format, expect: &str| {
            let result = result.map(str::to_owned).map_err(|problem| vec![problem.clone()]);
            assert_eq!(render(Path::new("a.yaml"), &result, format), expect);
        };
        let line = "a.yaml:7: steps[0].x: unknown key `x` [UNKNOWN_KEY]\n";
        check(Err(&problem.clone().on_line(Some(7))), Format::Table, line);
        check(Err(&problem), Format::Ids, "");
        check(Ok("n/t@1"), Format::Table, "a.yaml: ok (n/t@1)");
        check(Ok("n/t@1"), Format::Json, r#"{"problems":[],"template":"n/t@1","valid":true}"#);
    }
}
