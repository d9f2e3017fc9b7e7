//! Switches that turn off one guard each. Every one of them must be caught.

/// A guard that is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mutant {
    /// An outcome is stored whatever its attempt.
    NoAttemptFence,
    /// An outcome is stored although there is one.
    NoTerminalTest,
    /// Counters go down although nothing was inserted.
    CountsWithoutChange,
    /// Children are published before the commit that makes them ready.
    PublishBeforeCommit,
    /// A worker acknowledges before its report is answered.
    AckBeforeCommit,
    /// A worker acknowledges what another one holds.
    AckHeld,
    /// A worker acknowledges whatever is stale.
    AckStale,
    /// What is lost is sent again under its old number, which the bus remembers.
    SameMessageId,
    /// A redelivery runs at once.
    NoClaimOnRedelivery,
    /// A worker trusts the bus after its restart.
    NoClaimAfterRestart,
    /// A verdict on a claim is applied to whatever message is held.
    VerdictOnLater,
    /// A worker that drains acknowledges what was not taken back.
    AckDrained,
    /// A step that moved on is called poisoned.
    AckUnpoisoned,
    /// Members that were not confirmed are published again without a claim.
    SpanUnclaimed,
    /// Members are published without the claim that their row requires.
    MemberUnclaimed,
    /// A report that is stale acknowledges whatever is held.
    LaterAcknowledged,
    /// A claim is served although nobody waits for it any more.
    LateClaim,
    /// What a worker gives back it claims again before that is answered.
    ClaimedWhileGivenBack,
    /// A message that brings several steps is acknowledged when the first of them has ended.
    BundleAcknowledged,
    /// A message that brings again what a worker gives back is left alone there.
    LeftWhileGivenBack,
    /// A worker is granted the attempt again that it began and gave up.
    BegunAgain,
    /// Of two copies that come to one worker the first is forgotten.
    CopyCharged,
    /// What was dispatched again is not taken back from whom runs it.
    HeldCopyCharged,
    /// What was dispatched again is taken back as if nobody had begun it.
    UnstartedAgain,
    /// Members that were given back are published by their publisher without a claim, too.
    ReleasedMember,
    /// What the bus stores late runs at once.
    LateUnclaimed,
    /// So does what is published once more, as the confirmation was lost.
    RepeatedUnclaimed,
    /// A new worker trusts the bus.
    NewWorkerTrusts,
    /// A worker does not notice that the consumer was made anew.
    NoLookAtConsumer,
    /// A claim is granted anew to whom it was granted.
    GrantedAnew,
    /// A copy that a sweep publishes runs at once.
    SweepWithoutClaim,
    /// A message is judged by its attempt.
    JudgedByAttempt,
    /// Any claim costs a try.
    ChargedForSweeps,
    /// A claim does not look whether there is an outcome.
    RaisedAfterOutcome,
    /// Whoever ends the last member decides by what it saw before its commit, and nobody else does.
    CheckedBeforeCommit,
    /// Converging does not lock what it reads.
    ConvergedWithoutLock,
    /// Members are seen before their batch is sealed.
    NoSealTest,
    /// Sealing does not look whether it is done.
    SealedTwice,
    /// Children that came while a lock was waited for are not noticed.
    EdgesNotCompared,
    /// Nobody looks for ready steps that were not published.
    NoSweep,
    /// Nobody compares rows with the bus.
    NoReconciler,
}
