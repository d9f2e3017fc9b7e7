use crate::StepError;

/// Runs work that blocks, such as reading files, on a thread that may block. A panic in it goes on
/// in the handler, where the worker catches it.
///
/// The work is not stopped when the handler is: long loops should look at
/// [`crate::StepContext::cancelled`].
///
/// # Errors
/// Those of the work.
pub async fn run_blocking<T, F>(work: F) -> Result<T, StepError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StepError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(error.into()),
        },
    }
}
