//! The agent as a whole: what it is made of, how it starts, and how it ends.

use std::{
    io,
    net::SocketAddrV4,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use godwit_proto::{
    config::{self, AgentConfig, ConfigError, MemberAddress},
    failure::chain,
    tls::{self, Credentials, CredentialsError, Identity, Role},
};
use godwit_runtime::{Runtime, RuntimeError};
use godwit_types::{HostName, IdError, InstanceState};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tracing::{error, info, warn};

use crate::{
    board::Board,
    build::{self, Builds},
    container::{self, Containers},
    exclusive::Exclusive,
    health::Health,
    host::Host,
    host_service,
    images::{self, Images, ImagesConfig},
    ledger::{Ledger, LedgerError, Role as Holding, now_ms},
    live::{Live, LiveSettings, Reload},
    outbox::Outbox,
    postcopy::{Arrivals, Tails},
    precopy::{self, Flows, Throttled},
    progress::ProgressBoard,
    session::{self, Known, Settings},
    transfer::{
        Expected,
        memory::{accept, wire::PROTOCOL},
        service::{RuntimeSinks, TransferService},
    },
};

/// Where things are on this host.
#[derive(Debug, Clone)]
pub struct Config {
    /// The configuration directory: `config.json` and the credentials.
    pub config: PathBuf,
    pub data: PathBuf,
    pub run: PathBuf,
    /// The cgroup below which containers get theirs.
    pub cgroup: String,
    pub criu: PathBuf,
    pub interpose: Option<PathBuf>,
    pub shim: PathBuf,
    /// How writes to the memory of containers may be tracked.
    pub tracking: godwit_runtime::memory::Wanted,
    /// Registries, and how to speak to them.
    pub images: ImagesConfig,
    /// What of it can change later.
    pub live: Live,
}

impl Config {
    /// The keys of the settings file that say something else in `other` and hold from a start on.
    pub fn differs(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("config", self.config == other.config),
            ("data-root", self.data == other.data),
            ("run-root", self.run == other.run),
            ("cgroup-parent", self.cgroup == other.cgroup),
            ("criu", self.criu == other.criu),
            ("interpose", self.interpose == other.interpose),
            ("shim", self.shim == other.shim),
            ("tracking", self.tracking == other.tracking),
            ("images", self.images == other.images),
        ];
        let differ = keys.into_iter().filter(|(_, same)| !same);
        differ.map(|(key, _)| key).collect()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("configuration can't be used")]
    Config(#[from] ConfigError),
    #[error("credentials can't be used")]
    Credentials(#[from] CredentialsError),
    #[error("certificate is for `{0}`, not for a host")]
    NotAHost(Identity),
    #[error("certificate's name is not a host's")]
    Name(#[from] IdError),
    #[error("`listen` is `{0}`, not an IPv4 address and a port")]
    Listen(String),
    #[error("the configuration names no member")]
    NoMembers,
    #[error("ledger can't be used")]
    Ledger(#[from] LedgerError),
    #[error("runtime can't be used")]
    Runtime(#[from] RuntimeError),
    #[error("can't listen on {address}")]
    Bind {
        address: SocketAddrV4,
        #[source]
        source: io::Error,
    },
    #[error("server ended")]
    Serve(#[source] tonic::transport::Error),
}

/// A configuration directory that a host can use.
struct Credible {
    members: Vec<MemberAddress>,
    credentials: Credentials,
    identity: Identity,
    listen: String,
    address: SocketAddrV4,
}

impl Credible {
    fn read(config: &Config) -> Result<Self, AgentError> {
        let AgentConfig { listen, members } = config::load(&config.config)?;
        let credentials = Credentials::load(&config.config)?;
        let identity = credentials.identity()?;
        if identity.role != Role::Host {
            return Err(AgentError::NotAHost(identity));
        }
        if members.is_empty() {
            return Err(AgentError::NoMembers);
        }
        let address = listen
            .parse()
            .map_err(|_| AgentError::Listen(listen.clone()))?;
        Ok(Self {
            members,
            credentials,
            identity,
            listen,
            address,
        })
    }
}

/// A host's agent, its containers found again and its port bound.
pub struct Agent {
    host: Arc<Host>,
    settings: Settings,
    credentials: Credentials,
    listener: TcpListener,
}

impl Agent {
    /// Who an agent with this configuration would be, and where it would listen. Starts nothing.
    pub fn identity(config: &Config) -> Result<(Identity, SocketAddrV4), AgentError> {
        let Credible {
            identity, address, ..
        } = Credible::read(config)?;
        Ok((identity, address))
    }

    /// Reads the configuration, opens the runtime, and finds the containers that are here.
    pub async fn start(config: Config) -> Result<Self, AgentError> {
        let Credible {
            members,
            credentials,
            identity,
            listen,
            address,
        } = Credible::read(&config)?;
        let name = HostName::new(identity.name)?;
        let tls = credentials.client_config()?;
        // First the port: of two agents on one host the second must not touch anything.
        let listener = tls::listen(address)
            .await
            .map_err(|source| AgentError::Bind { address, source })?;
        let ledger = Ledger::open(config.data.join("ledger"))?;
        let known = Known::in_dir(&config.data);
        let forgotten = ledger.prune(now_ms())?;
        if forgotten > 0 {
            info!(forgotten, "containers that left long ago were forgotten");
        }
        let runtime = Runtime::open(godwit_runtime::Config {
            data: config.data,
            run: config.run,
            cgroup: config.cgroup,
            underlay: *address.ip(),
            criu: config.criu,
            interpose: config.interpose,
            shim: config.shim,
            reserve: godwit_runtime::memory::Reserve(config.live.memory_reserve),
            tracking: config.tracking,
        })
        .await?;
        let facts = runtime.facts().await;
        for warning in facts.warnings.iter().chain(&facts.criu_problem) {
            warn!(warning, "host lacks something");
        }
        let host = Arc::new(Host {
            name,
            cluster: identity.cluster,
            tls,
            facts,
            images: Images::new(config.images, runtime.clone()),
            runtime,
            ledger,
            board: Board::default(),
            outbox: Outbox::default(),
            flows: Flows::default(),
            throttled: Throttled::default(),
            arrivals: Arrivals::default(),
            tails: Tails::default(),
            progress: ProgressBoard::default(),
            containers: Containers::default(),
            builds: Builds::default(),
            exclusive: Exclusive::default(),
            doors: Arc::default(),
            live: LiveSettings::new(config.live),
            connected: AtomicBool::new(false),
            networks: tokio::sync::Mutex::default(),
        });
        build::clear_leftovers(&host.runtime).await;
        host.runtime.end_interrupted_commits().await?;
        host.refresh_images().await;
        attach(&host).await?;
        let settings = Settings {
            address: listen,
            underlay: *address.ip(),
            members,
            known,
        };
        Ok(Self {
            host,
            settings,
            credentials,
            listener,
        })
    }

    /// What it says of itself.
    pub fn health(&self) -> Health {
        Health(self.host.clone())
    }

    /// The way to change settings while it runs.
    pub fn reload(&self) -> Reload {
        Reload(self.host.clone())
    }

    /// Serves until `shutdown`. Containers go on: they belong to their shims.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
        let Self {
            host,
            settings,
            credentials,
            listener,
        } = self;
        let config = tls::offering(&*credentials.server_config()?, PROTOCOL);
        let incoming = tls::incoming(listener, config, host.cluster.clone());
        let incoming = accept::split(incoming, host.doors.clone(), host.name.clone());
        let sinks = RuntimeSinks(host.clone());
        let server = Server::builder()
            // A peer that is gone must not hold a half-written checkpoint for long.
            .http2_keepalive_interval(Some(Duration::from_secs(2)))
            .http2_keepalive_timeout(Some(Duration::from_secs(4)))
            // A checkpoint must not wait for window updates on a fast link.
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            // A chunk in one frame, and not in sixteen.
            .max_frame_size(1 << 20)
            .add_service(host_service::Service::server(host.clone()))
            .add_service(images::peers::Service::server(host.clone()))
            .add_service(TransferService::server(
                host.name.clone(),
                host.doors.clone(),
                sinks,
            ))
            .serve_with_incoming(incoming);
        info!(host = %host.name, cluster = host.cluster, address = settings.address, "agent runs");
        tokio::select! {
            () = shutdown => {
                info!("agent ends; containers go on");
                Ok(())
            }
            ended = server => ended.map_err(AgentError::Serve),
            () = session::keep(host, settings) => Ok(()),
        }
    }
}

/// Finds the instances that outlived the agent before this one. What they are doing is asked
/// before the first session, since an instance that a report leaves out is not there.
async fn attach(host: &Arc<Host>) -> Result<(), AgentError> {
    let instances = host.runtime.instances().await?;
    let found = instances.into_iter().map(|id| async move {
        let state = container::ask(host, &id).await;
        (id, state)
    });
    for (id, state) in futures::future::join_all(found).await {
        let taken = match container::take_up(&host.ledger, &id, state.as_ref()) {
            Ok(Some(taken)) => taken,
            Ok(None) => {
                warn!(
                    container = id.short(),
                    ?state,
                    "instance is not in the ledger: left alone"
                );
                continue;
            }
            Err(error) => {
                error!(
                    container = id.short(),
                    error = chain(&error),
                    "instance left alone"
                );
                continue;
            }
        };
        let record = &taken.record;
        // One that was restored, or was about to be, gets nothing more; nor does one that is lost.
        if let Holding::Incoming {
            generation,
            migration,
            from,
            ..
        } = &record.role
            && !record.succeeded("stage", migration)
            && matches!(state, Some(InstanceState::Staged { .. }))
        {
            let (migration, generation) = (migration.clone(), *generation);
            host.doors.open(
                &id,
                host.runtime.memory_free(),
                Expected {
                    migration,
                    generation,
                    from: from.clone(),
                },
            );
        }
        if state.is_some()
            && let Err(error) = host.runtime.rejoin(&id).await
        {
            warn!(
                container = id.short(),
                error = chain(&error),
                "network not taken up"
            );
        }
        if matches!(state, Some(InstanceState::Running { .. })) {
            // The agent before this one may have slowed it down.
            precopy::restore(&host.runtime, &id).await;
        }
        info!(container = id.short(), ?state, "instance found");
        let line = record.generation().zip(state.clone());
        host.board
            .publish_with(&id, line, record.life.details.clone());
        container::attach(host, taken, state);
    }
    Ok(())
}
