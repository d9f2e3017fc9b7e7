//! Workload `conditional_approval`: who must approve depends on the amount.

use serde::Deserialize;
use serde_json::json;
use tasker_sdk::{
    Decision, DependencyResult, HandlerRegistry, StepContext, StepError, StepHandler, StepResult,
    code,
};

pub(crate) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new()
        .register("approval.validate_request", validate_request)
        .register("approval.route", Route)
        .register("approval.approve", approve)
        .register("approval.finalize", finalize)
}

/// An approval that was asked for has failed.
const NOT_APPROVED: &str = "NOT_APPROVED";
/// Below this amount nobody is asked.
const MANAGER_FROM: f64 = 1_000.0;
/// From this amount on finance is asked, too.
const FINANCE_FROM: f64 = 5_000.0;

#[derive(Deserialize)]
struct Input {
    amount: f64,
}

async fn validate_request(ctx: StepContext) -> Result<StepResult, StepError> {
    let Input { amount } = ctx.input()?;
    if amount <= 0.0 {
        let message = format!("amount: must be more than 0, not {amount}");
        return Err(StepError::permanent(code::VALIDATION_ERROR, message));
    }
    Ok(json!({"amount": amount}).into())
}

struct Route;

impl Decision for Route {}

impl StepHandler for Route {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let Input { amount } = ctx.dependency_result_as("validate_request").await?;
        let approvals: &[&str] = if amount < MANAGER_FROM {
            &["auto_approve"]
        } else if amount < FINANCE_FROM {
            &["manager_approval"]
        } else {
            &["manager_approval", "finance_review"]
        };
        self.decision_success(approvals.iter().copied(), json!({"amount": amount}))
    }
}

/// `handler.initialization` of the approvals.
#[derive(Deserialize)]
struct Approver {
    approver: String,
}

async fn approve(ctx: StepContext) -> Result<StepResult, StepError> {
    let Approver { approver } = ctx.config_as()?;
    Ok(json!({"approved": true, "approver": approver}).into())
}

/// Sees exactly those approvals that were asked for.
async fn finalize(ctx: StepContext) -> Result<StepResult, StepError> {
    let Input { amount } = ctx.input()?;
    let mut approvers = Vec::new();
    for (name, result) in ctx.dependency_results().await? {
        match result {
            DependencyResult::Result(approval) => approvers.push(approval["approver"].clone()),
            _ => {
                let message = format!("`{name}` did not approve");
                return Err(StepError::permanent(NOT_APPROVED, message));
            }
        }
    }
    Ok(json!({"amount": amount, "approved_by": approvers}).into())
}
