use std::time::{Duration, Instant};

use anyhow::bail;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until something is so.
///
/// # Errors
/// That of a look, or if it is not so within the limit.
pub async fn until(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    until_some(what, limit, async || Ok(look().await?.then_some(()))).await
}

/// Looks until there is something.
///
/// # Errors
/// That of a look, or if there is nothing within the limit.
pub async fn until_some<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if begun.elapsed() > limit {
            bail!("not within {limit:?}: {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
