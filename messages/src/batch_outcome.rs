use serde::{Deserialize, Serialize};

use crate::CursorConfig;

/// What a batchable step decided, in `result.batch_processing_outcome`.
///
/// The JSON is `{"type":"no_batches"}` or `{"type":"create_batches", …}`. Reading it from a
/// handler's result is the work of `workflow::batching`, which names what is wrong with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BatchProcessingOutcome {
    /// There is nothing to do.
    NoBatches {
        /// Why.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// One worker step per range.
    CreateBatches(CreateBatches),
}

/// The content of a `create_batches` outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CreateBatches {
    /// The `batch_worker` step of the template that runs the ranges.
    pub worker_template_name: String,
    /// How many ranges there are; must agree with the source.
    pub worker_count: u32,
    /// Where the ranges come from; exactly one form.
    #[serde(flatten)]
    pub source: CursorSource,
    /// How many items all ranges hold together.
    pub total_items: u64,
}

/// The three forms of a batch's ranges.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CursorSource {
    /// Spelled out, bounded by the payload limit.
    #[serde(rename = "cursor_configs")]
    List(Vec<CursorConfig>),
    /// An integer range in pieces of one size.
    #[serde(rename = "cursor_range")]
    Range(CursorRange),
    /// Appended in pages while the analyzer ran.
    #[serde(rename = "cursors_appended")]
    Appended(u32),
}

/// An integer range in pieces of one size, the short form of a list of ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CursorRange {
    /// The first position.
    pub start: u64,
    /// The position after the last.
    pub end: u64,
    /// Items in each range; the last one may hold fewer.
    pub batch_size: u64,
}
