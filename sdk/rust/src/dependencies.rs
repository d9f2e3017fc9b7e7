use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tasker_messages::{DependencyResult, GetResult, MemberResult};

use crate::{MemberResultExt, MemberStream, StepContext, StepError, code};

impl StepContext {
    /// The result of one step that this one depends on, by name: a declared parent, the analyzer of
    /// a batch that this step aggregates, or one of its members. Read on demand if it is too large
    /// to travel along; a member is searched for in the pages of its batch, so
    /// [`Self::stream_dependency_results`] is the way to read many.
    ///
    /// # Errors
    /// A permanent [`code::DEPENDENCY_NOT_FOUND`] or [`code::DEPENDENCY_FAILED`], else the
    /// backend's.
    pub async fn dependency_result(&self, name: &str) -> Result<Value, StepError> {
        match self.parts().shared.dependencies.get(name) {
            Some(DependencyResult::Result(value)) => Ok(value.clone()),
            Some(DependencyResult::Failed(message)) => {
                let message = format!("`{name}` ended in error: {message}");
                Err(StepError::permanent(code::DEPENDENCY_FAILED, message))
            }
            Some(DependencyResult::TooLarge { .. }) => self.fetch_result(name).await,
            None if self.is_analyzer(name) => self.fetch_result(name).await,
            None => self.find_member(name).await,
        }
    }

    async fn find_member(&self, name: &str) -> Result<Value, StepError> {
        if self.may_be_member(name) {
            let mut members = self.stream_dependency_results();
            while let Some(member) = members.next().await? {
                if member.name != name {
                    continue;
                }
                return member.result_as()?.ok_or_else(|| {
                    let why = member.failure_text().unwrap_or_default();
                    let message = format!("`{name}` has no result: {why}");
                    StepError::permanent(code::DEPENDENCY_FAILED, message)
                });
            }
        }
        let message = format!("`{}` does not depend on a step `{name}`", self.name());
        Err(StepError::permanent(code::DEPENDENCY_NOT_FOUND, message))
    }

    /// The result of one step that this one depends on, as a type.
    ///
    /// # Errors
    /// Those of [`Self::dependency_result`], or a permanent [`code::RESULT_SHAPE`].
    pub async fn dependency_result_as<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<T, StepError> {
        serde_json::from_value(self.dependency_result(name).await?).map_err(|e| {
            StepError::permanent(code::RESULT_SHAPE, format!("the result of `{name}`: {e}"))
        })
    }

    /// What all steps that this one depends on have come to, by name: declared parents and members
    /// of batches, in memory at once. [`Self::stream_dependency_results`] is for large batches.
    /// A placeholder of a batch without ranges is left out.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn dependency_results(
        &self,
    ) -> Result<BTreeMap<String, DependencyResult>, StepError> {
        let mut all = BTreeMap::new();
        for (name, result) in &self.parts().shared.dependencies {
            let result = match result {
                DependencyResult::TooLarge { .. } => {
                    DependencyResult::Result(self.fetch_result(name).await?)
                }
                small => small.clone(),
            };
            all.insert(name.clone(), result);
        }
        let mut members = self.stream_dependency_results();
        while let Some(member) = members.next().await? {
            let (name, result) = member_as_dependency(member)?;
            all.insert(name, result);
        }
        Ok(all)
    }

    /// The outcomes of the members of all of [`Self::batches`], in pages: batch by batch, in
    /// ordinal order, failed ones included. Placeholders of batches without ranges are left out.
    pub fn stream_dependency_results(&self) -> MemberStream {
        MemberStream::new(self.clone())
    }

    fn is_analyzer(&self, name: &str) -> bool {
        self.batches().iter().any(|batch| batch.batchable_step == name)
    }

    fn may_be_member(&self, name: &str) -> bool {
        self.batches().iter().any(|batch| {
            let rest = name.strip_prefix(batch.worker_template.as_str());
            rest.is_some_and(|rest| rest.starts_with('_'))
        })
    }

    async fn fetch_result(&self, name: &str) -> Result<Value, StepError> {
        let request = GetResult { task_id: self.task_id(), name: name.to_owned() };
        let stored = self.parts().backend.result(request).await?.result;
        let text = stored.ok_or_else(|| {
            StepError::permanent(code::DEPENDENCY_NOT_FOUND, format!("`{name}` has no result"))
        })?;
        Ok(serde_json::from_str(text.get())?)
    }
}

fn member_as_dependency(member: MemberResult) -> Result<(String, DependencyResult), StepError> {
    let result = match member.result_as()? {
        Some(value) => DependencyResult::Result(value),
        None => DependencyResult::Failed(member.failure_text().unwrap_or_default()),
    };
    Ok((member.name, result))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{TestBatch, TestContext};

    fn context() -> StepContext {
        let batch = TestBatch::new("analyze", "work")
            .analyzer_result(json!({"total": 3}))
            .succeeded(json!({"n": 1}))
            .failed(StepError::permanent("BAD", "no luck"));
        TestContext::builder()
            .dependency("small", json!(1))
            .large_dependency("large", json!("x".repeat(100)))
            .failed_dependency("broken", "boom")
            .batch(batch)
            .build()
    }

    #[tokio::test]
    async fn results_by_name() {
        let ctx = context();
        let table = [
            ("small", Ok(json!(1))),
            ("large", Ok(json!("x".repeat(100)))),
            ("broken", Err(code::DEPENDENCY_FAILED)),
            ("analyze", Ok(json!({"total": 3}))),
            ("work_001", Ok(json!({"n": 1}))),
            ("work_002", Err(code::DEPENDENCY_FAILED)),
            ("work_003", Err(code::DEPENDENCY_NOT_FOUND)),
            ("working", Err(code::DEPENDENCY_NOT_FOUND)),
            ("stranger", Err(code::DEPENDENCY_NOT_FOUND)),
        ];
        for (name, expect) in table {
            let got = ctx.dependency_result(name).await;
            assert_eq!(
                got.as_ref().map_err(StepError::code),
                expect.as_ref().map_err(|&e| e),
                "{name}"
            );
        }
    }

    #[tokio::test]
    async fn all_results() {
        let all = context().dependency_results().await.expect("in memory");
        let shown: Vec<_> = all
            .iter()
            .map(|(name, result)| match result {
                DependencyResult::Result(_) => (name.as_str(), "result"),
                DependencyResult::Failed(message) => (name.as_str(), message.as_str()),
                DependencyResult::TooLarge { .. } => (name.as_str(), "too large"),
            })
            .collect();
        let expect = [
            ("broken", "boom"),
            ("large", "result"),
            ("small", "result"),
            ("work_001", "result"),
            ("work_002", "no luck [BAD]"),
        ];
        assert_eq!(shown, expect);
    }
}
