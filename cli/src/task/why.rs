use tasker_messages::{Reason, TaskId, Why};

use crate::client::{Client, Document};
use crate::output::{self, Format};
use crate::table::printable;

pub(super) async fn run(client: &Client, id: TaskId, format: Format) -> anyhow::Result<()> {
    let Document { text, value } = client.why(id).await?;
    let text = match format {
        Format::Json => text,
        Format::Ids => value.id.to_string(),
        Format::Table => render(&value),
    };
    Ok(output::print(&text)?)
}

fn render(why: &Why) -> String {
    let mut text = format!("{}  {}\n", why.id, why.state);
    if let Some(error) = &why.error {
        text.push_str(&format!("{} [{}]\n", printable(&error.message), error.code));
    }
    for Reason { step, state, code, message, .. } in &why.reasons {
        text.push_str(&format!(
            "\n{}  {state}  {code}\n    {}\n",
            printable(step),
            printable(message)
        ));
    }
    if why.reasons.is_empty() {
        text.push_str(match why.state.is_terminal() {
            true => "nothing is left to do\n",
            false => "everything of it has just ended; the next transaction ends the task\n",
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reasons_as_people_read_them() {
        let id = "0190a0a0-0000-7000-8000-000000000002";
        let reason = json!({"step": "b", "state": "pending", "code": "waits_for_parents",
            "message": "waits for `a`", "waits_for": ["a"]});
        let mut why = json!({"id": id, "state": "error", "reasons": [reason],
            "error": {"code": "NO", "message": "never\n", "retryable": false}});
        let shown = |why| render(&serde_json::from_value(why).expect("reasons"));
        assert_eq!(
            shown(why.clone()),
            format!(
                "{id}  error\nnever\\n [NO]\n\nb  pending  waits_for_parents\n    waits for `a`\n"
            )
        );
        why["reasons"] = json!([]);
        assert!(shown(why).ends_with("\nnothing is left to do\n"));
    }
}
