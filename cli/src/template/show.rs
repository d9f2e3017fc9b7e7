use tasker_messages::{TemplateList, TemplateView};

use super::reference;
use crate::client::Document;
use crate::output::Format;
use crate::table::Table;

pub(super) fn list(answer: Document<TemplateList>, format: Format) -> String {
    let templates = &answer.value.templates;
    match format {
        Format::Table => {
            let mut table = Table::with_header(&["TEMPLATE", "REGISTERED", "DESCRIPTION"]);
            for template in templates {
                let description = template.description.clone().unwrap_or_default();
                table.row([reference(template), template.created_at.clone(), description]);
            }
            table.render()
        }
        Format::Json => answer.text,
        Format::Ids => templates.iter().map(|t| reference(t) + "\n").collect(),
    }
}

pub(super) fn one(answer: Document<TemplateView>, format: Format) -> String {
    match format {
        // The source as it was registered, so that it can be redirected into a file.
        Format::Table => answer.value.source,
        Format::Json => answer.text,
        Format::Ids => reference(&answer.value.summary),
    }
}
