//! One file per command. Each takes its arguments, asks the library and prints the answer; what
//! it returns is the program's exit code.

mod attach;
mod build;
mod cluster_init;
mod cluster_set;
mod commit;
mod completion;
mod create;
mod diff;
mod each;
mod exec;
mod host_activate;
mod host_drain;
mod host_ls;
mod host_update;
mod image_history;
mod image_inspect;
mod image_load;
mod image_ls;
mod image_prune;
mod image_pull;
mod image_push;
mod image_rm;
mod image_save;
mod image_tag;
mod import;
mod inspect;
mod kill;
mod login;
mod logout;
mod logs;
mod manual;
mod member_add;
mod member_ls;
mod member_rm;
mod member_transfer;
mod migrate;
mod migration_cancel;
mod migration_inspect;
mod migration_ls;
mod migration_recover;
mod network_create;
mod network_inspect;
mod network_ls;
mod network_rm;
mod pause;
mod port;
mod ps;
mod rename;
mod restart;
mod rm;
mod run;
mod start;
mod stats;
mod stop;
mod system_df;
mod system_prune;
mod top;
mod unpause;
mod update;
mod version;
mod volume;
mod wait;
mod watch;

use clap::Subcommand;

use crate::options::Options;

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(run::Args),
    Exec(exec::Args),
    Attach(attach::Args),
    Top(top::Args),
    Stats(stats::Args),
    Diff(diff::Args),
    Ps(ps::Args),
    Port(port::Args),
    Logs(logs::Args),
    Inspect(inspect::Args),
    Create(create::Args),
    Start(start::Args),
    Stop(stop::Args),
    Restart(restart::Args),
    Kill(kill::Args),
    Pause(pause::Args),
    Unpause(unpause::Args),
    Wait(wait::Args),
    Rename(rename::Args),
    Update(update::Args),
    Rm(rm::Args),
    Build(build::Args),
    Commit(commit::Args),
    Import(import::Args),
    Migrate(migrate::Args),
    /// Look at migrations and take them back
    #[command(subcommand)]
    Migration(Migration),
    Pull(image_pull::Args),
    Push(image_push::Args),
    /// List the images and the hosts that have them
    Images(image_ls::Args),
    Rmi(image_rm::Args),
    Tag(image_tag::Args),
    Save(image_save::Args),
    Load(image_load::Args),
    History(image_history::Args),
    Login(login::Args),
    Logout(logout::Args),
    /// Look at what takes room, and free it
    #[command(subcommand)]
    System(System),
    /// Pull, push, load, list and remove images
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
    /// Look at the members that govern the cluster, and change who they are
    #[command(subcommand)]
    Member(Member),
    /// Make a cluster and set what holds in it
    #[command(subcommand)]
    Cluster(ClusterCommand),
    Version(version::Args),
    Completion(completion::Args),
    #[command(hide = true)]
    Manual(manual::Args),
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
    Build(build::Args),
    Import(import::Args),
    Load(image_load::Args),
    #[command(alias = "list")]
    Ls(image_ls::Args),
    Pull(image_pull::Args),
    Push(image_push::Args),
    Tag(image_tag::Args),
    Inspect(image_inspect::Args),
    History(image_history::Args),
    #[command(alias = "remove")]
    Rm(image_rm::Args),
    Prune(image_prune::Args),
    Save(image_save::Args),
}

#[derive(Debug, Subcommand)]
pub enum System {
    Df(system_df::Args),
    Prune(system_prune::Args),
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
    Update(host_update::Args),
}

#[derive(Debug, Subcommand)]
pub enum Member {
    Ls(member_ls::Args),
    Add(member_add::Args),
    Replace(member_add::ReplaceArgs),
    Rm(member_rm::Args),
    TransferLeader(member_transfer::Args),
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
        Command::Run(args) => run::run(global, args).await,
        Command::Exec(args) => exec::run(global, args).await,
        Command::Attach(args) => attach::run(global, args).await,
        Command::Top(args) => top::run(global, args).await,
        Command::Stats(args) => stats::run(global, args).await,
        Command::Diff(args) => diff::run(global, args).await,
        Command::Ps(args) => ps::run(global, args).await,
        Command::Port(args) => port::run(global, args).await,
        Command::Logs(args) => logs::run(global, args).await,
        Command::Inspect(args) => inspect::run(global, args).await,
        Command::Stop(args) => stop::run(global, args).await,
        Command::Rm(args) => rm::run(global, args).await,
        Command::Create(args) => create::run(global, args).await,
        Command::Start(args) => start::run(global, args).await,
        Command::Restart(args) => restart::run(global, args).await,
        Command::Kill(args) => kill::run(global, args).await,
        Command::Pause(args) => pause::run(global, args).await,
        Command::Unpause(args) => unpause::run(global, args).await,
        Command::Wait(args) => wait::run(global, args).await,
        Command::Rename(args) => rename::run(global, args).await,
        Command::Update(args) => update::run(global, args).await,
        Command::Build(args) | Command::Image(Image::Build(args)) => build::run(global, args).await,
        Command::Commit(args) => commit::run(global, args).await,
        Command::Import(args) | Command::Image(Image::Import(args)) => {
            import::run(global, args).await
        }
        Command::Migrate(args) => migrate::run(global, args).await,
        Command::Migration(Migration::Ls(args)) => migration_ls::run(global, args).await,
        Command::Migration(Migration::Inspect(args)) => migration_inspect::run(global, args).await,
        Command::Migration(Migration::Cancel(args)) => migration_cancel::run(global, args).await,
        Command::Migration(Migration::Recover(args)) => migration_recover::run(global, args).await,
        Command::Image(Image::Load(args)) | Command::Load(args) => {
            image_load::run(global, args).await
        }
        Command::Image(Image::Ls(args)) | Command::Images(args) => {
            image_ls::run(global, args).await
        }
        Command::Image(Image::Pull(args)) | Command::Pull(args) => {
            image_pull::run(global, args).await
        }
        Command::Image(Image::Push(args)) | Command::Push(args) => {
            image_push::run(global, args).await
        }
        Command::Image(Image::Tag(args)) | Command::Tag(args) => image_tag::run(global, args).await,
        Command::Image(Image::Inspect(args)) => image_inspect::run(global, args).await,
        Command::Image(Image::History(args)) | Command::History(args) => {
            image_history::run(global, args).await
        }
        Command::Image(Image::Rm(args)) | Command::Rmi(args) => image_rm::run(global, args).await,
        Command::Image(Image::Prune(args)) => image_prune::run(global, args).await,
        Command::Image(Image::Save(args)) | Command::Save(args) => {
            image_save::run(global, args).await
        }
        Command::Login(args) => login::run(global, args).await,
        Command::Logout(args) => logout::run(global, args),
        Command::System(System::Df(args)) => system_df::run(global, args).await,
        Command::System(System::Prune(args)) => system_prune::run(global, args).await,
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
        Command::Host(Host::Update(args)) => host_update::run(global, args).await,
        Command::Host(Host::Activate(args)) => host_activate::run(global, args).await,
        Command::Member(Member::Ls(args)) => member_ls::run(global, args).await,
        Command::Member(Member::Add(args)) => member_add::run(global, args).await,
        Command::Member(Member::Replace(args)) => member_add::replace(global, args).await,
        Command::Member(Member::Rm(args)) => member_rm::run(global, args).await,
        Command::Member(Member::TransferLeader(args)) => member_transfer::run(global, args).await,
        Command::Cluster(ClusterCommand::Init(args)) => cluster_init::run(global, args),
        Command::Cluster(ClusterCommand::Set(args)) => cluster_set::run(global, args).await,
        Command::Version(args) => version::run(global, args),
        Command::Completion(args) => completion::run(args),
        Command::Manual(args) => manual::run(args),
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
