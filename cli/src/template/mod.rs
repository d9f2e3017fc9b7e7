//! `tasker template …`.

mod lint;
mod plan;
mod show;

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use tasker_messages::{Namespace, TemplateSummary};

use crate::cluster::ClusterArgs;
use crate::exit::Exit;
use crate::output::{self, Format, OutputArgs};
use crate::template_ref::TemplateRef;

use plan::PlanArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// Check a template without a cluster
    Lint {
        /// A YAML file, or - for standard input
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Store a template, so that tasks can run it
    Register {
        /// A YAML file, or - for standard input
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Run the analyzers of a template and print which batches a task would have; makes no task
    /// (exit code 6 if something is violated)
    Plan(PlanArgs),
    /// List the registered templates
    List {
        /// Only those of this namespace
        #[arg(long)]
        namespace: Option<Namespace>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print a registered template
    Show {
        /// NAMESPACE/NAME, newest version, or NAMESPACE/NAME@VERSION
        template: TemplateRef,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub(crate) async fn run(command: TemplateCommand, cluster: &ClusterArgs) -> anyhow::Result<()> {
    match command {
        TemplateCommand::Lint { file, output } => lint::run(&file, &read(&file)?, output.format),
        TemplateCommand::Register { file, output } => {
            let yaml = read(&file)?;
            let answer = cluster.client()?.register(yaml).await?;
            let text = match output.format {
                Format::Table => format!("registered {}", reference(&answer.value)),
                Format::Json => answer.text,
                Format::Ids => reference(&answer.value),
            };
            Ok(output::print(&text)?)
        }
        TemplateCommand::Plan(args) => plan::run(args, cluster).await,
        TemplateCommand::List { namespace, output } => {
            let answer = cluster.client()?.templates(namespace.as_ref()).await?;
            Ok(output::print(&show::list(answer, output.format))?)
        }
        TemplateCommand::Show { template, output } => {
            let answer = cluster.client()?.template(&template).await?;
            Ok(output::print(&show::one(answer, output.format))?)
        }
    }
}

/// What names a template on the command line.
fn reference(template: &TemplateSummary) -> String {
    format!("{}/{}@{}", template.namespace, template.name, template.version)
}

fn read(file: &Path) -> Result<Vec<u8>, Exit> {
    let content = if file.as_os_str() == "-" {
        let mut content = Vec::new();
        std::io::stdin().lock().read_to_end(&mut content).map(|_| content)
    } else {
        std::fs::read(file)
    };
    content.map_err(|e| Exit::usage(format!("cannot read {}: {e}", file.display())))
}
