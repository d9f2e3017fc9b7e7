//! Templates: every version is kept; parsed ones are cached for ever, since a version never
//! changes, nor does the environment of a process.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use tasker_messages::{Namespace, Scope, TemplateId, TemplateSummary};
use tasker_workflow::Template;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::views::rfc3339;
use crate::{Store, StoreError};

/// A template and its id.
#[derive(Debug, Clone)]
pub struct StoredTemplate {
    /// The id of this version.
    pub id: TemplateId,
    /// The parsed version.
    pub template: Arc<Template>,
}

/// A version as it is registered.
#[derive(Debug, Clone)]
pub struct TemplateVersion {
    /// What it is.
    pub summary: TemplateSummary,
    /// The YAML.
    pub source: String,
    /// Whether this call stored it; `false` if the same source was stored before.
    pub created: bool,
}

/// Most parsed templates in memory, and most names; beyond that the cache begins anew.
const MAX_CACHED: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct TemplateCache {
    parsed: RwLock<HashMap<TemplateId, Arc<Template>>>,
    /// The newest version of each name when it was looked up last.
    newest: RwLock<HashMap<(Namespace, String), TemplateId>>,
}

impl TemplateCache {
    fn get(&self, id: TemplateId) -> Option<Arc<Template>> {
        self.parsed.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn put(&self, id: TemplateId, template: Arc<Template>) {
        put(&self.parsed, id, template);
    }
}

fn put<K: Hash + Eq, V>(cache: &RwLock<HashMap<K, V>>, key: K, value: V) {
    let mut cache = cache.write().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= MAX_CACHED {
        cache.clear();
    }
    cache.insert(key, value);
}

struct Row {
    id: Uuid,
    namespace: String,
    name: String,
    version: String,
    description: Option<String>,
    source: String,
    created_at: OffsetDateTime,
}

impl Row {
    fn into_version(self, created: bool) -> Result<TemplateVersion, StoreError> {
        let namespace = Namespace::new(&self.namespace);
        let summary = TemplateSummary {
            namespace: namespace.map_err(|e| StoreError::stored("namespace", e))?,
            name: self.name,
            version: self.version,
            description: self.description,
            created_at: rfc3339(self.created_at),
        };
        Ok(TemplateVersion { summary, source: self.source, created })
    }
}

impl Store {
    /// Stores a version, or finds the same name and version: the caller compares the sources.
    pub async fn register_template(
        &self,
        id: TemplateId,
        template: &Template,
        source: &str,
    ) -> Result<TemplateVersion, StoreError> {
        let inserted = sqlx::query_scalar!(
            // A namespace comes with its first template.
            "with namespace as (
                 insert into tasker.namespaces (name) values ($2) on conflict do nothing
             )
             insert into tasker.templates
                 (id, namespace, name, version, version_order, description, source)
             values ($1, $2, $3, $4, $5, $6, $7)
             on conflict (namespace, name, version) do nothing returning id",
            id.as_uuid(),
            template.namespace.as_str(),
            template.name.as_str(),
            template.version,
            &version_order(&template.version),
            template.description,
            source,
        )
        .fetch_optional(&self.api)
        .await?;
        let row = sqlx::query_as!(
            Row,
            "select id, namespace, name, version, description, source, created_at
             from tasker.templates where namespace = $1 and name = $2 and version = $3",
            template.namespace.as_str(),
            template.name.as_str(),
            template.version,
        )
        .fetch_one(&self.api)
        .await?;
        row.into_version(inserted.is_some())
    }

    /// All versions in these namespaces, by namespace, name and version.
    pub async fn list_templates(&self, scope: &Scope) -> Result<Vec<TemplateSummary>, StoreError> {
        let names = scope.names();
        let rows = sqlx::query_as!(
            Row,
            "select id, namespace, name, version, description, '' as \"source!\", created_at
             from tasker.templates where $1::text[] is null or namespace = any($1)
             order by namespace, name, version_order, version limit 10000",
            names.as_deref(),
        )
        .fetch_all(&self.api)
        .await?;
        rows.into_iter().map(|row| Ok(row.into_version(false)?.summary)).collect()
    }

    /// One version with its source; the newest if no version is given.
    pub async fn find_template(
        &self,
        namespace: &Namespace,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<(TemplateId, TemplateVersion)>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            "select id, namespace, name, version, description, source, created_at
             from tasker.templates
             where namespace = $1 and name = $2 and ($3::text is null or version = $3)
             order by version_order desc, version desc limit 1",
            namespace.as_str(),
            name,
            version,
        )
        .fetch_optional(&self.api)
        .await?;
        row.map(|row| Ok((TemplateId::from_uuid(row.id), row.into_version(false)?))).transpose()
    }

    /// The parsed version of this name; the newest if no version is given.
    pub async fn load_template(
        &self,
        namespace: &Namespace,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<StoredTemplate>, StoreError> {
        let mut connection = self.quick.lend().await?;
        let found = sqlx::query_scalar!(
            "select id from tasker.templates
             where namespace = $1 and name = $2 and ($3::text is null or version = $3)
             order by version_order desc, version desc limit 1",
            namespace.as_str(),
            name,
            version,
        )
        .fetch_optional(&mut *connection)
        .await?;
        connection.give_back();
        let Some(id) = found.map(TemplateId::from_uuid) else { return Ok(None) };
        if version.is_none() {
            put(&self.templates.newest, (namespace.clone(), name.to_owned()), id);
        }
        Ok(Some(StoredTemplate { id, template: self.template(id).await? }))
    }

    /// The newest version of this name as far as this process knows: another one may have been registered
    /// since. A task that relies on it says so ([`crate::NewTask::assumes_newest`]).
    pub fn remembered_template(&self, namespace: &Namespace, name: &str) -> Option<StoredTemplate> {
        let key = (namespace.clone(), name.to_owned());
        let newest = self.templates.newest.read().unwrap_or_else(PoisonError::into_inner);
        let id = *newest.get(&key)?;
        Some(StoredTemplate { id, template: self.templates.get(id)? })
    }

    /// The parsed template of this id.
    pub async fn template(&self, id: TemplateId) -> Result<Arc<Template>, StoreError> {
        if let Some(template) = self.templates.get(id) {
            return Ok(template);
        }
        let source =
            sqlx::query_scalar!("select source from tasker.templates where id = $1", id.as_uuid())
                // Not from the pool of the transaction that may be waiting for it.
                .fetch_one(&self.api)
                .await?;
        let environment = self.environment.as_deref();
        let template = Template::parse_in(source.as_bytes(), environment).map_err(|problems| {
            let problem = problems.first().map_or_else(String::new, ToString::to_string);
            StoreError::Template { id, problem }
        })?;
        let template = Arc::new(template);
        self.templates.put(id, Arc::clone(&template));
        Ok(template)
    }
}

/// Sorts as versions do: numbers first, a pre-release before its release.
fn version_order(version: &str) -> Vec<i32> {
    let release = version.split('+').next().unwrap_or(version);
    let (numbers, pre) = release.split_once('-').map_or((release, 1), |(n, _)| (n, 0));
    let mut order: Vec<i32> = numbers.split('.').map(|n| n.parse().unwrap_or(0)).collect();
    order.push(pre);
    order
}

#[cfg(test)]
mod tests {
    use super::version_order;

    #[test]
    fn versions_sort() {
        let mut versions = ["1.0.0", "1.10.0", "1.9.9", "2.0.0-rc1", "2.0.0", "1.0.0-a"];
        versions.sort_by_key(|v| version_order(v));
        assert_eq!(versions, ["1.0.0-a", "1.0.0", "1.9.9", "1.10.0", "2.0.0-rc1", "2.0.0"]);
    }
}
