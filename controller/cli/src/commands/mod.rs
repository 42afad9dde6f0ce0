//! One file per command. Each takes its arguments, asks the library and prints the answer; what
//! it returns is the program's exit code.

mod cluster_init;
mod cluster_set;
mod completion;
mod host_activate;
mod host_drain;
mod host_ls;
mod image_load;
mod image_ls;
mod inspect;
mod logs;
mod member_ls;
mod migrate;
mod migration_cancel;
mod migration_inspect;
mod migration_ls;
mod migration_recover;
mod network_create;
mod network_inspect;
mod network_ls;
mod network_rm;
mod port;
mod ps;
mod rm;
mod run;
mod stop;
mod version;
mod volume;

use clap::Subcommand;

use crate::options::Options;

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Box<run::Args>),
    Ps(ps::Args),
    Port(port::Args),
    Logs(logs::Args),
    Inspect(inspect::Args),
    Stop(stop::Args),
    Rm(rm::Args),
    Migrate(migrate::Args),
    /// Look at migrations and take them back
    #[command(subcommand)]
    Migration(Migration),
    /// Load images onto hosts and list them
    #[command(subcommand)]
    Image(Image),
    /// Make and list networks
    #[command(subcommand)]
    Network(Network),
    /// Make, list and remove volumes
    #[command(subcommand)]
    Volume(Volume),
    /// Look at the hosts that run containers, and empty them
    #[command(subcommand)]
    Host(Host),
    /// Look at the members that govern the cluster
    #[command(subcommand)]
    Member(Member),
    /// Make a cluster and set what holds in it
    #[command(subcommand)]
    Cluster(ClusterCommand),
    Version(version::Args),
    Completion(completion::Args),
}

#[derive(Debug, Subcommand)]
pub enum Migration {
    Ls(migration_ls::Args),
    Inspect(migration_inspect::Args),
    Cancel(migration_cancel::Args),
    Recover(migration_recover::Args),
}

#[derive(Debug, Subcommand)]
pub enum Image {
    Load(image_load::Args),
    Ls(image_ls::Args),
}

#[derive(Debug, Subcommand)]
pub enum Network {
    Create(network_create::Args),
    Ls(network_ls::Args),
    Inspect(network_inspect::Args),
    Rm(network_rm::Args),
    Prune(network_rm::Prune),
}

#[derive(Debug, Subcommand)]
pub enum Volume {
    Create(volume::Create),
    Ls(volume::Ls),
    Inspect(volume::Inspect),
    Rm(volume::Rm),
    Prune(volume::Prune),
}

#[derive(Debug, Subcommand)]
pub enum Host {
    Ls(host_ls::Args),
    Drain(host_drain::Args),
    Activate(host_activate::Args),
}

#[derive(Debug, Subcommand)]
pub enum Member {
    Ls(member_ls::Args),
}

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    Init(cluster_init::Args),
    Set(cluster_set::Args),
}

/// Runs a command and answers the exit code.
pub async fn run(options: Options) -> anyhow::Result<u8> {
    let global = &options.global;
    match options.command {
        Command::Run(args) => run::run(global, *args).await,
        Command::Ps(args) => ps::run(global, args).await,
        Command::Port(args) => port::run(global, args).await,
        Command::Logs(args) => logs::run(global, args).await,
        Command::Inspect(args) => inspect::run(global, args).await,
        Command::Stop(args) => stop::run(global, args).await,
        Command::Rm(args) => rm::run(global, args).await,
        Command::Migrate(args) => migrate::run(global, args).await,
        Command::Migration(Migration::Ls(args)) => migration_ls::run(global, args).await,
        Command::Migration(Migration::Inspect(args)) => migration_inspect::run(global, args).await,
        Command::Migration(Migration::Cancel(args)) => migration_cancel::run(global, args).await,
        Command::Migration(Migration::Recover(args)) => migration_recover::run(global, args).await,
        Command::Image(Image::Load(args)) => image_load::run(global, args).await,
        Command::Image(Image::Ls(args)) => image_ls::run(global, args).await,
        Command::Network(Network::Create(args)) => network_create::run(global, args).await,
        Command::Network(Network::Inspect(args)) => network_inspect::run(global, args).await,
        Command::Network(Network::Rm(args)) => network_rm::run(global, args).await,
        Command::Network(Network::Prune(args)) => network_rm::prune(global, args).await,
        Command::Network(Network::Ls(args)) => network_ls::run(global, args).await,
        Command::Volume(Volume::Create(args)) => volume::create(global, args).await,
        Command::Volume(Volume::Ls(args)) => volume::ls(global, args).await,
        Command::Volume(Volume::Inspect(args)) => volume::inspect(global, args).await,
        Command::Volume(Volume::Rm(args)) => volume::rm(global, args).await,
        Command::Volume(Volume::Prune(args)) => volume::prune(global, args).await,
        Command::Host(Host::Ls(args)) => host_ls::run(global, args).await,
        Command::Host(Host::Drain(args)) => host_drain::run(global, args).await,
        Command::Host(Host::Activate(args)) => host_activate::run(global, args).await,
        Command::Member(Member::Ls(args)) => member_ls::run(global, args).await,
        Command::Cluster(ClusterCommand::Init(args)) => cluster_init::run(global, args),
        Command::Cluster(ClusterCommand::Set(args)) => cluster_set::run(global, args).await,
        Command::Version(args) => version::run(global, args),
        Command::Completion(args) => completion::run(args),
    }
}

/// A migration of `redis` from h1 to h2, for the tests of what is printed.
#[cfg(test)]
pub fn sample_view(phase: godwit_types::Phase) -> godwit_types::MigrationView {
    use godwit_types::{ContainerId, MigrationId, MigrationTimes, MigrationView};

    MigrationView {
        id: MigrationId::from_bytes([1; 8]),
        container: ContainerId::from_bytes([2; 32]),
        name: "redis".parse().unwrap(),
        from: "h1".parse().unwrap(),
        to: "h2".parse().unwrap(),
        phase,
        error: None,
        note: None,
        failure: None,
        recovered: false,
        awaits: None,
        options: Default::default(),
        priority: Default::default(),
        place: None,
        started_ms: 1_700_000_000_000,
        rounds: Vec::new(),
        progress: None,
        times: MigrationTimes {
            freeze_us: 123_400,
            total_us: 456_000,
            predicted_freeze_us: 0,
            bytes: 12_897_485,
            steps: Vec::new(),
        },
    }
}
