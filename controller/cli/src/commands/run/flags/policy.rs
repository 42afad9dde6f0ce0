//! What is done when the container ends, and where it may run.

use godwit_types::{AutoRemove, Constraint, PolicyOptions, RestartPolicy, parse_label};

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Flags {
    /// Start it again when it ends: no, on-failure[:COUNT], always or unless-stopped
    #[arg(long, value_name = "POLICY", default_value_t = RestartPolicy::No)]
    restart: RestartPolicy,
    /// Remove it once it has ended
    #[arg(long)]
    pub rm: bool,
    /// Set a label
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Run it only on hosts with this label, wherever it goes: LABEL==VALUE or LABEL!=VALUE
    #[arg(long = "constraint", value_name = "CONSTRAINT")]
    constraints: Vec<Constraint>,
}

impl Flags {
    /// `followed`: this program will see its end.
    pub fn options(self, followed: bool) -> anyhow::Result<PolicyOptions> {
        let remove = if followed {
            AutoRemove::Followed
        } else {
            AutoRemove::AtOnce
        };
        let options = PolicyOptions {
            restart: self.restart,
            remove: self.rm.then_some(remove),
            labels: self.labels.into_iter().collect(),
            constraints: self.constraints,
        };
        options.check()?;
        Ok(options)
    }
}
