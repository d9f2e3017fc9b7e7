//! Places at which a process of a test build can be made to end at once.

/// A place before or after a commit, a publish, an answer or an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// Tasks are about to be stored.
    SubmitBegins,
    /// Tasks are stored, and nobody was told.
    SubmitStored,
    /// Outcomes are about to be stored.
    OutcomesBegin,
    /// Outcomes are stored, and nobody was told.
    OutcomesStored,
    /// Workers have their verdicts; the actors below know nothing yet.
    OutcomesAnswered,
    /// Claims are decided, not committed.
    ClaimDecided,
    /// Claims are committed, and nobody was told.
    ClaimStored,
    /// Work items are about to be published.
    PublishBegins,
    /// Work items are on the bus; nothing is recorded.
    PublishDone,
    /// Members are recorded as published.
    MembersRecorded,
    /// Steps are about to be recorded as sent.
    SentBegins,
    /// Steps are recorded as sent.
    SentStored,
    /// A command to expand is about to be published.
    AnnounceBegins,
    /// A command to expand is on the bus.
    AnnounceDone,
    /// A batch is written and sealed, not committed.
    SealWritten,
    /// A batch is sealed, and dispatch knows nothing.
    SealStored,
    /// A command to expand is done and about to be acknowledged.
    CommandDone,
    /// A command to expand is acknowledged.
    CommandAcked,
    /// A convergence is written, not committed.
    ConvergeWritten,
    /// A convergence is committed, and dispatch knows nothing.
    ConvergeStored,
    /// Retries were woken, and dispatch knows nothing.
    RetriesWoken,
    /// A worker has a claim granted and has not begun.
    ClaimGranted,
    /// A worker is about to report.
    ReportBegins,
    /// A worker has the answer to a report and has acknowledged nothing.
    ReportAnswered,
    /// A worker has acknowledged what it reported.
    ReportAcked,
}

impl CrashPoint {
    /// All of them: those of workers first, since what a worker leaves behind is claimed.
    pub const ALL: [Self; 25] = [
        Self::ReportBegins,
        Self::ReportAnswered,
        Self::ReportAcked,
        Self::ClaimGranted,
        Self::ClaimDecided,
        Self::ClaimStored,
        Self::SubmitBegins,
        Self::SubmitStored,
        Self::OutcomesBegin,
        Self::OutcomesStored,
        Self::OutcomesAnswered,
        Self::PublishBegins,
        Self::PublishDone,
        Self::MembersRecorded,
        Self::SentBegins,
        Self::SentStored,
        Self::AnnounceBegins,
        Self::AnnounceDone,
        Self::SealWritten,
        Self::SealStored,
        Self::CommandDone,
        Self::CommandAcked,
        Self::ConvergeWritten,
        Self::ConvergeStored,
        Self::RetriesWoken,
    ];
}

/// A process has come to this place, and goes on.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn pass(_: CrashPoint) {}

/// Ends the process if the file that `TASKER_CRASH` names holds the name of this place. Of all that come
/// by, the one that removes the file ends, so that each time it is written one process does.
#[cfg(feature = "mutants")]
pub fn pass(point: CrashPoint) {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let read = || std::env::var_os("TASKER_CRASH").map(PathBuf::from);
    let Some(file) = FILE.get_or_init(read) else { return };
    let named = std::fs::read_to_string(file).unwrap_or_default();
    if named == format!("{point:?}") && std::fs::remove_file(file).is_ok() {
        std::process::abort();
    }
}
