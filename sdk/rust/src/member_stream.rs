use std::collections::VecDeque;
use std::vec;

use serde::de::DeserializeOwned;
use tasker_messages::{BatchSummary, GetMembers, MemberResult, MembersPage, StepState};
use tokio::task::JoinHandle;

use crate::{StepContext, StepError, code};

/// How many members are asked for at a time; the server may give fewer.
const MEMBERS_PER_PAGE: u32 = 1_000;

/// How many pages are on their way at a time, as long as they come as large as they were asked for.
/// When the server cuts one short, those behind it are of no use, and the rest is read one by one.
const PAGES_AHEAD: usize = 3;

/// The outcomes of batch members, batch by batch, in ordinal order.
///
/// One page is in memory and a few are on their way, however large the batch is. The stream checks
/// that every member of a batch has come by before it ends.
#[derive(Debug)]
pub struct MemberStream {
    ctx: StepContext,
    page: vec::IntoIter<MemberResult>,
    /// The pages after the one in memory, in order.
    coming: VecDeque<Coming>,
    /// How many of them there may be.
    ahead: usize,
    /// Which of the context's batches is being read.
    batch: usize,
    /// How many members of that batch have been taken from pages, or were passed over.
    seen: u32,
    /// Where the next batch begins: 0 but for a stream that goes on.
    begin: u32,
    /// Which batch the page in memory is of.
    of_page: usize,
}

/// A page that is being fetched.
#[derive(Debug)]
struct Coming {
    from: u32,
    task: JoinHandle<Result<MembersPage, StepError>>,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MemberStream {
    pub(crate) fn new(ctx: StepContext) -> Self {
        Self {
            ctx,
            page: Vec::new().into_iter(),
            coming: VecDeque::new(),
            ahead: PAGES_AHEAD,
            batch: 0,
            seen: 0,
            begin: 0,
            of_page: 0,
        }
    }

    /// The next member; `None` after the last.
    ///
    /// # Errors
    /// Those of the backend, or [`code::MEMBERS_INCOMPLETE`] if pages do not add up. The stream is
    /// of no use after an error.
    pub async fn next(&mut self) -> Result<Option<MemberResult>, StepError> {
        loop {
            if let Some(member) = self.page.next() {
                return Ok(Some(member));
            }
            if let Some(mut coming) = self.coming.pop_front() {
                let from = coming.from;
                let page = (&mut coming.task).await??;
                self.turn_to(from, page)?;
            } else if !self.start_next_batch()? {
                return Ok(None);
            }
        }
    }

    /// Begins at a member instead of the first; for a stream that nothing was read from.
    pub(crate) fn skip_to(&mut self, batch: usize, ordinal: u32) {
        (self.batch, self.begin) = (batch, ordinal);
    }

    /// Which of the context's batches the last member came from.
    pub(crate) fn of_page(&self) -> usize {
        self.of_page
    }

    fn current(&self) -> Option<&BatchSummary> {
        self.ctx.batches().get(self.batch)
    }

    /// Starts to fetch the first page of the first batch from here on that has real members.
    fn start_next_batch(&mut self) -> Result<bool, StepError> {
        while self.current().is_some_and(|batch| batch.is_no_op || batch.worker_count == 0) {
            self.batch += 1;
        }
        let begin = std::mem::take(&mut self.begin);
        let Some(batch) = self.current() else { return Ok(false) };
        if begin >= batch.worker_count {
            self.batch += 1;
            return self.start_next_batch();
        }
        self.seen = begin;
        self.fetch_from(begin)?;
        Ok(true)
    }

    /// Sees to it that the next pages are on their way, the first of them from this member on.
    fn fetch_from(&mut self, next: u32) -> Result<(), StepError> {
        self.ctx.check_cancelled()?;
        if self.coming.front().is_some_and(|coming| coming.from != next) {
            self.coming.clear();
            self.ahead = 1;
        }
        let Some(batch) = self.current() else { return Ok(()) };
        let (batch_id, members) = (batch.batch_id, batch.worker_count);
        let mut from = self.coming.back().map_or(next, |last| last.from + MEMBERS_PER_PAGE);
        while self.coming.is_empty() || (self.coming.len() < self.ahead && from < members) {
            let request = GetMembers { batch_id, from, limit: MEMBERS_PER_PAGE };
            let ctx = self.ctx.clone();
            let task = tokio::spawn(async move { ctx.parts().backend.members(request).await });
            self.coming.push_back(Coming { from, task });
            from = from.saturating_add(MEMBERS_PER_PAGE);
        }
        Ok(())
    }

    fn turn_to(&mut self, from: u32, page: MembersPage) -> Result<(), StepError> {
        let MembersPage { members, next } = page;
        let mut expected = from;
        for member in &members {
            if member.ordinal < expected {
                let message = format!("member {} came twice or out of order", member.ordinal);
                return Err(self.incomplete(&message));
            }
            expected = member.ordinal.saturating_add(1);
        }
        self.seen = self.seen.saturating_add(members.len() as u32);
        self.of_page = self.batch;
        match next {
            Some(next) if next < expected || next == from => {
                return Err(self.incomplete(&format!("the page after {from} starts at {next}")));
            }
            Some(next) => self.fetch_from(next)?,
            None => self.end_batch()?,
        }
        self.page = members.into_iter();
        Ok(())
    }

    fn end_batch(&mut self) -> Result<(), StepError> {
        if self.current().is_some_and(|batch| batch.worker_count != self.seen) {
            return Err(self.incomplete(&format!("{} members came", self.seen)));
        }
        self.batch += 1;
        self.coming.clear();
        Ok(())
    }

    /// A join over too few members would be wrong without anybody noticing.
    fn incomplete(&self, what: &str) -> StepError {
        let whose = self.current().map_or_else(String::new, |batch| {
            format!("batch {} of {} members: ", batch.batch_id, batch.worker_count)
        });
        StepError::retryable(code::MEMBERS_INCOMPLETE, format!("{whose}{what}"))
    }
}

/// Reading what a member returned.
pub trait MemberResultExt {
    /// Whether the member succeeded and left a result; a step that was resolved by hand may lack one.
    fn is_success(&self) -> bool;

    /// The member's result as a type; `None` if it has none, because it failed.
    ///
    /// # Errors
    /// A permanent [`code::RESULT_SHAPE`] that names the member if it does not fit.
    fn result_as<T: DeserializeOwned>(&self) -> Result<Option<T>, StepError>;

    /// Why the member has no result, for people; `None` if it succeeded.
    fn failure_text(&self) -> Option<String>;
}

impl MemberResultExt for MemberResult {
    fn is_success(&self) -> bool {
        let is_success = matches!(self.state, StepState::Complete | StepState::ResolvedManually);
        is_success && self.result.is_some()
    }

    fn result_as<T: DeserializeOwned>(&self) -> Result<Option<T>, StepError> {
        let Some(text) = self.result.as_ref().filter(|_| self.is_success()) else {
            return Ok(None);
        };
        serde_json::from_str(text.get()).map(Some).map_err(|e| {
            StepError::permanent(code::RESULT_SHAPE, format!("the result of `{}`: {e}", self.name))
        })
    }

    fn failure_text(&self) -> Option<String> {
        if self.is_success() {
            return None;
        }
        Some(match &self.error {
            Some(error) => format!("{} [{}]", error.message, error.code),
            None => self.state.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{TestBatch, TestContext};

    fn batch(members: u32) -> TestBatch {
        (0..members).fold(TestBatch::new("a", "w"), |b, n| b.succeeded(json!(n)))
    }

    async fn read(ctx: &StepContext) -> Result<Vec<u64>, StepError> {
        let mut stream = ctx.stream_dependency_results();
        let mut got = Vec::new();
        while let Some(member) = stream.next().await? {
            got.extend(member.result_as::<u64>()?);
        }
        Ok(got)
    }

    #[tokio::test]
    async fn pages_in_order() {
        // (members of each batch, page size)
        let table: &[(&[u32], u32)] = &[
            (&[], 3),
            (&[1], 3),
            (&[3], 3),
            (&[7], 3),
            (&[4, 2], 3),
            (&[2_500], 1_000),
            (&[1_000, 3_001], 1_000),
            (&[4_500, 10], 700),
            (&[5], 1),
        ];
        for &(sizes, page) in table {
            let mut builder = TestContext::builder().page_limit(page);
            for &size in sizes {
                builder = builder.batch(batch(size)).batch(TestBatch::no_batches("e", "v"));
            }
            let got = read(&builder.build()).await.expect("complete");
            let expect: Vec<u64> = sizes.iter().flat_map(|&n| 0..u64::from(n)).collect();
            assert_eq!(got, expect, "{sizes:?} in pages of {page}");
        }
    }

    #[tokio::test]
    async fn missing_members_are_noticed() {
        let ctx = TestContext::builder().page_limit(2).batch(batch(5).claiming(6)).build();
        let error = read(&ctx).await.expect_err("one is missing");
        assert_eq!((error.code(), error.is_retryable()), (code::MEMBERS_INCOMPLETE, true));
    }
}
