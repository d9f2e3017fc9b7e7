//! Messages that cannot be worked off are kept with the reason.

use tasker_messages::Refusal;

use crate::{Store, StoreError};

impl Store {
    /// Keeps a message that was carried but cannot be accepted; the namespace is that of its subject
    /// and need not be a valid one.
    pub async fn keep_dead_letter(
        &self,
        namespace: &str,
        subject: &str,
        payload: &[u8],
        refusal: &Refusal,
    ) -> Result<(), StoreError> {
        let error = serde_json::to_value(refusal).map_err(|e| StoreError::stored("error", e))?;
        sqlx::query!(
            "insert into tasker.dead_letters (namespace, subject, payload, error)
             values ($1, $2, $3, $4)",
            namespace,
            subject,
            payload,
            error,
        )
        .execute(&self.hot)
        .await?;
        Ok(())
    }
}
