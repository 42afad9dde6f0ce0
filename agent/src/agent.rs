//! The agent as a whole: what it is made of, how it starts, and how it ends.

use std::{io, net::SocketAddrV4, path::PathBuf, sync::Arc, time::Duration};

use godwit_proto::{
    config::{self, AgentConfig, ConfigError},
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
    container::{self, Containers},
    host::Host,
    host_service,
    images::{self, Images, ImagesConfig},
    ledger::{Ledger, LedgerError, Role as Holding, now_ms},
    outbox::Outbox,
    postcopy::{Arrivals, Tails},
    precopy::{self, Flows, Throttled},
    progress::ProgressBoard,
    session::{self, Settings},
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
    /// Bytes of memory that arriving containers leave for others. None: a tenth of what is
    /// available.
    pub memory_reserve: Option<u64>,
    /// How writes to the memory of containers may be tracked.
    pub tracking: godwit_runtime::memory::Wanted,
    /// Registries, and how to speak to them.
    pub images: ImagesConfig,
    /// Compare the memory of containers that leave with what came, in the freeze.
    pub verify_memory: bool,
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

/// A host's agent, its containers found again and its port bound.
pub struct Agent {
    host: Arc<Host>,
    settings: Settings,
    credentials: Credentials,
    listener: TcpListener,
}

impl Agent {
    /// Reads the configuration, opens the runtime, and finds the containers that are here.
    pub async fn start(config: Config) -> Result<Self, AgentError> {
        let AgentConfig { listen, members } = config::load(&config.config)?;
        let credentials = Credentials::load(&config.config)?;
        let identity = credentials.identity()?;
        if identity.role != Role::Host {
            return Err(AgentError::NotAHost(identity));
        }
        if members.is_empty() {
            return Err(AgentError::NoMembers);
        }
        let name = HostName::new(identity.name)?;
        let address: SocketAddrV4 = listen
            .parse()
            .map_err(|_| AgentError::Listen(listen.clone()))?;
        let tls = credentials.client_config()?;
        // First the port: of two agents on one host the second must not touch anything.
        let listener = tls::listen(address)
            .await
            .map_err(|source| AgentError::Bind { address, source })?;
        let ledger = Ledger::open(config.data.join("ledger"))?;
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
            reserve: godwit_runtime::memory::Reserve(config.memory_reserve),
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
            doors: Arc::default(),
            verify_memory: config.verify_memory,
            networks: tokio::sync::Mutex::default(),
        });
        host.refresh_images().await;
        attach(&host).await?;
        let settings = Settings {
            address: listen,
            underlay: *address.ip(),
            members,
        };
        Ok(Self {
            host,
            settings,
            credentials,
            listener,
        })
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
        host.board
            .publish(&id, record.generation().zip(state.clone()));
        container::attach(host, taken, state);
    }
    Ok(())
}
