use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tasker_sdk::testing::{BatchFlow, FlowResult};
use tasker_sdk::{RegisteredHandler, StepError};

/// The directory with the example files.
pub(crate) fn data_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

pub(crate) fn expected(file: &str) -> Value {
    let text = fs::read_to_string(data_dir().join(file)).expect("a file of expected values");
    serde_json::from_str(&text).expect("JSON")
}

pub(crate) fn handler(callable: &str) -> RegisteredHandler {
    tasker_examples::registry().get(callable).expect(callable)
}

/// Files that a test makes; removed when it ends well.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("tasker-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), content).expect("a file");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Three steps of an example, with the names that its template gives them.
pub(crate) fn flow(steps: [(&str, &str); 3]) -> BatchFlow {
    let [analyzer, worker, aggregator] = steps.map(|(name, callable)| (name, handler(callable)));
    BatchFlow::new(analyzer, worker, aggregator)
}

pub(crate) fn aggregate(result: FlowResult) -> Result<Value, StepError> {
    result.aggregate.expect("some worker succeeded")
}

/// Compares everything; floats to 1e-9 of their size, all else exactly.
#[track_caller]
pub(crate) fn assert_close(got: &Value, expect: &Value, place: &str) {
    match (got, expect) {
        (Value::Object(got), Value::Object(expect)) => {
            let keys = |map: &serde_json::Map<String, Value>| {
                map.keys().cloned().collect::<std::collections::BTreeSet<_>>()
            };
            assert_eq!(keys(got), keys(expect), "{place}");
            for (key, value) in expect {
                assert_close(&got[key], value, &format!("{place}.{key}"));
            }
        }
        (Value::Number(a), Value::Number(b)) if b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            assert!((a - b).abs() <= 1e-9 * b.abs(), "{place}: {a} is not {b}");
        }
        _ => assert_eq!(got, expect, "{place}"),
    }
}
