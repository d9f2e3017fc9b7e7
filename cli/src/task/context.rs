use std::io::Read;

use serde_json::Value;
use serde_json::value::RawValue;
use tasker_messages::json::{self, Limits};
use tasker_messages::{Problem, TaskRequest, code};

use crate::exit::Exit;

/// The context of a task as given on the command line: JSON, `@FILE`, or `-` for standard input.
///
/// It is checked here, where a line of the file can be named, and sent as it was written: a number
/// keeps its digits.
pub(crate) fn read(flag: &str, argument: &str) -> Result<Box<RawValue>, Exit> {
    given(flag, argument, |text| match text {
        Value::Object(_) => Ok(()),
        _ => Err(Problem::new(code::WRONG_TYPE, "a context must be a JSON object")),
    })
}

/// Any JSON value, given in the same ways.
pub(crate) fn read_value(flag: &str, argument: &str) -> Result<Box<RawValue>, Exit> {
    given(flag, argument, |_| Ok(()))
}

fn given(
    flag: &str,
    argument: &str,
    check: impl Fn(&Value) -> Result<(), Problem>,
) -> Result<Box<RawValue>, Exit> {
    let (origin, text) = match argument {
        "-" => ("standard input".to_owned(), std::io::read_to_string(std::io::stdin().lock())),
        _ => match argument.strip_prefix('@') {
            Some(path) => (path.to_owned(), read_file(path)),
            None => (flag.to_owned(), Ok(argument.to_owned())),
        },
    };
    let text = text.map_err(|e| Exit::usage(format!("cannot read {origin}: {e}")))?;
    parse(text, check).map_err(|problem| Exit::usage(format!("{origin}: {problem}")))
}

/// A context is small; a file that was named by mistake is not read to its end.
fn read_file(path: &str) -> std::io::Result<String> {
    let most = TaskRequest::MAX_CONTEXT_BYTES as u64 + 1;
    let mut text = String::new();
    std::fs::File::open(path)?.take(most).read_to_string(&mut text)?;
    Ok(text)
}

fn parse(
    text: String,
    check: impl Fn(&Value) -> Result<(), Problem>,
) -> Result<Box<RawValue>, Problem> {
    check(&json::parse(text.as_bytes(), Limits::bytes(TaskRequest::MAX_CONTEXT_BYTES))?)?;
    RawValue::from_string(text).map_err(|e| Problem::new(code::INVALID_SYNTAX, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts() {
        let text = |argument: &str| read("--x", argument).map(|raw| raw.get().to_owned());
        assert_eq!(text(r#"{"n": 1.50}"#).as_deref(), Ok(r#"{"n": 1.50}"#));
        let check = |argument: &str, expect: &str| {
            let error = read("--x", argument).expect_err(argument).to_string();
            assert!(error.contains(expect), "{error}");
        };
        check("[]", code::WRONG_TYPE);
        check("[]", "--x: ");
        assert_eq!(read_value("--x", "[]").map(|raw| raw.get().to_owned()).as_deref(), Ok("[]"));
        check("{\n\"a\":}", "line 2");
        check("{\"a\":1,\"a\":2}", code::DUPLICATE_KEY);
        check("", code::INVALID_SYNTAX);
        check("@/does/not/exist", "cannot read /does/not/exist");
    }

    #[test]
    fn a_file_is_read() {
        let path = std::env::temp_dir().join(format!("tasker-context-{}", std::process::id()));
        std::fs::write(&path, "{\"a\": 1}\n").expect("a temporary file");
        let read = read("--x", &format!("@{}", path.display()));
        std::fs::remove_file(&path).expect("its removal");
        assert_eq!(read.expect("valid").get(), "{\"a\": 1}");
    }
}
