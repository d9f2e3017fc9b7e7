//! Rows held against the templates that they were made from.

use std::collections::BTreeMap;

use tasker_messages::TemplateId;
use tasker_workflow::{Template, converge, joined_batches, undecided_steps, unfounded_steps};
use uuid::Uuid;

use super::Offences;
use crate::convergence::{TaskState, read_states};
use crate::pool::Tx;
use crate::{Store, StoreError};

/// Tasks that are read at a time.
const PAGE: i64 = 1_000;

/// What the rules object to, by invariant.
#[derive(Default)]
pub(super) struct Ruled {
    pub(super) order: Offences,
    pub(super) counters: Offences,
    pub(super) budgets: Offences,
    pub(super) ends: Offences,
}

/// One row of `queries/verify/page.sql`.
struct TaskRow {
    id: Uuid,
    template_id: Uuid,
    ended: bool,
    stopped: bool,
    rowless: i64,
}

impl Store {
    pub(super) async fn hold_against_rules(&self, tx: &mut Tx) -> Result<Ruled, StoreError> {
        let mut ruled = Ruled::default();
        let mut after = Uuid::nil();
        loop {
            let page = sqlx::query_file_as!(TaskRow, "queries/verify/page.sql", after, PAGE)
                .fetch_all(&mut **tx)
                .await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            let ids: Vec<Uuid> = page.iter().map(|task| task.id).collect();
            let states = read_states(tx, &ids, true).await?;
            let mut joins = Vec::new();
            for task in &page {
                let Some(state) = states.get(&task.id) else { continue };
                let template = self.template(TemplateId::from_uuid(task.template_id)).await?;
                ruled.hold(task, state, &template);
                joins.extend(pairs(&template, state));
            }
            ruled.order = late_members(tx, ruled.order, &joins).await?;
        }
        self.hold_budgets(tx, &mut ruled.budgets).await?;
        Ok(ruled)
    }

    async fn hold_budgets(&self, tx: &mut Tx, budgets: &mut Offences) -> Result<(), StoreError> {
        let used = sqlx::query_file!("queries/verify/tries.sql").fetch_all(&mut **tx).await?;
        for row in used {
            let template = self.template(TemplateId::from_uuid(row.template_id)).await?;
            let Some((_, step)) = template.step(&row.template_step) else { continue };
            let most = step.retry.max_attempts;
            if row.tries as u32 > most {
                budgets.one(row.id, || format!("{} tries of {most} were charged", row.tries));
            }
        }
        Ok(())
    }
}

impl Ruled {
    fn hold(&mut self, task: &TaskRow, state: &TaskState, template: &Template) {
        let facts = state.facts();
        for name in unfounded_steps(template, &facts) {
            let id = state.step_ids().get(name).copied().unwrap_or(task.id);
            self.order.one(id, || {
                format!("`{name}` exists, and nothing that its task {} has done allows it", task.id)
            });
        }
        if task.stopped {
            return;
        }
        let undecided = undecided_steps(template, &facts) as i64;
        if task.rowless != undecided {
            self.counters.one(task.id, || {
                let counted = task.rowless;
                format!("it counts {counted} waiting steps without a row; there are {undecided}")
            });
        }
        let due = converge(template, &facts).create;
        if let Some(step) = due.first().filter(|_| task.ended) {
            let name = &template.steps[step.step].name;
            self.ends
                .one(task.id, || format!("the task has ended, and `{name}` never came to run"));
        }
    }
}

/// Convergences that have a row, each with the batches that it joins.
fn pairs(template: &Template, state: &TaskState) -> Vec<(Uuid, Uuid)> {
    let (steps, batches) = (state.step_ids(), state.batch_ids());
    let found = |(join, worker): (&str, &str)| Some((*steps.get(join)?, *batches.get(worker)?));
    joined_batches(template).filter_map(found).collect()
}

async fn late_members(
    tx: &mut Tx,
    order: Offences,
    pairs: &[(Uuid, Uuid)],
) -> Result<Offences, StoreError> {
    if pairs.is_empty() {
        return Ok(order);
    }
    let (joins, batches): (Vec<Uuid>, Vec<Uuid>) = pairs.iter().copied().unzip();
    let rows = sqlx::query_file_as!(super::Found, "queries/verify/joins.sql", &joins, &batches)
        .fetch_all(&mut **tx)
        .await?;
    Ok(order.rows(rows))
}

impl TaskState {
    fn step_ids(&self) -> BTreeMap<&str, Uuid> {
        self.ids_of_steps().collect()
    }

    fn batch_ids(&self) -> BTreeMap<&str, Uuid> {
        self.ids_of_batches().collect()
    }
}
