//! Workload `http_fetch`: adds up one field of all that a paged JSON service lists.
//!
//! The template says which service, and what of the workers' network it may be on; the task names
//! a path below it. A whole URL of a task gets no further than public addresses and no credentials.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tasker_sdk::{
    Api, ApiClient, ApiPage, HandlerRegistry, Pagination, Secret, StepContext, StepError,
    StepHandler, StepResult, code,
};

pub(crate) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new().register("http_fetch.sum", Sum)
}

/// The context of the task.
#[derive(Deserialize)]
struct Input {
    path: String,
}

/// `handler.initialization`. Places in a page are JSON pointers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    base_url: String,
    /// Networks that are not public and may be connected to.
    #[serde(default)]
    allow_networks: Vec<String>,
    /// The variable of the worker's environment that holds a bearer token.
    token_variable: Option<String>,
    /// The list on a page.
    items: String,
    /// What the next page is asked for with, and the parameter that carries it.
    cursor: String,
    cursor_parameter: String,
    /// What of an item is added up.
    field: String,
}

/// Reads page after page, with a checkpoint behind each.
struct Sum;

impl Api for Sum {
    fn api_client(&self, ctx: &StepContext) -> Result<ApiClient, StepError> {
        let config: Config = ctx.config_as()?;
        let mut client = ApiClient::builder().base_url(config.base_url);
        for network in config.allow_networks {
            client = client.allow_network(network);
        }
        if let Some(variable) = config.token_variable {
            client = client.bearer(Secret::from_env(&variable)?);
        }
        client.build()
    }
}

impl StepHandler for Sum {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let config: Config = ctx.config_as()?;
        let (mut so_far, from) = match ctx.checkpoint().await? {
            Some(stored) => (
                serde_json::from_value(stored.accumulated_results)?,
                serde_json::from_value(stored.cursor)?,
            ),
            None => (SoFar::default(), ctx.input::<Input>()?.path),
        };
        let pagination =
            Pagination::cursor(&*config.items, &*config.cursor, &*config.cursor_parameter);
        let mut pages = self.get(&ctx, &from).pages(pagination);
        while let Some(page) = pages.next_page().await? {
            so_far.add(&page, &config.field)?;
            if let Some(next) = pages.next_url() {
                ctx.save_checkpoint(next, so_far.pages, &so_far).await?;
            }
        }
        StepResult::of(&so_far)
    }
}

/// What the pages so far come to, and what the step returns in the end.
#[derive(Default, Serialize, Deserialize)]
struct SoFar {
    pages: u64,
    items: u64,
    /// Items that do not have the field.
    without_field: u64,
    sum: u64,
}

impl SoFar {
    fn add(&mut self, page: &ApiPage, field: &str) -> Result<(), StepError> {
        self.pages += 1;
        for item in page.items() {
            self.items += 1;
            let value = match item.pointer(field) {
                None | Some(Value::Null) => {
                    self.without_field += 1;
                    continue;
                }
                Some(value) => value,
            };
            let sum = value.as_u64().and_then(|value| self.sum.checked_add(value));
            self.sum = sum.ok_or_else(|| {
                let message = format!("{field} of item {}: cannot add {value}", self.items);
                StepError::permanent(code::RESULT_SHAPE, message)
            })?;
        }
        Ok(())
    }
}
