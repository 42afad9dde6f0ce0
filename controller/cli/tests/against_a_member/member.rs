//! A member that answers as a test tells it to.

use std::{
    fs,
    path::{Path, PathBuf},
    pin::Pin,
    process::Command,
    sync::{Arc, Mutex, MutexGuard},
};

use godwit_cli::cluster::{ClusterPlan, init};
use godwit_proto::{
    control::{
        KillRequest, LabelHostRequest, PauseRequest, RenameRequest, UpdateRequest,
        control_server::*, log_chunk::Source, *,
    },
    document, tls,
    tls::Credentials,
    v1::{Document, Documents, Empty},
};
use godwit_types::{
    ContainerId, ContainerSpec, ContainerView, Digest, DrainView, Estimate, Generation, Limits,
    MigrationId, MigrationLimits, MigrationTimes, MigrationView, Phase, Status as ContainerStatus,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// What the member answers.
pub struct Script {
    /// So many calls are answered with `Unavailable` first.
    pub no_leader: u32,
    /// What the next run fails with.
    pub run: Option<Status>,
    pub status: ContainerStatus,
    /// One log stream after the other.
    pub logs: Vec<Vec<Result<LogChunk, Status>>>,
    pub migrate: Vec<Result<MigrationView, Status>>,
    pub migrated: Option<Phase>,
    pub estimate: Estimate,
    /// What a cancel is refused with.
    pub cancel: Option<Status>,
    /// What `migrate` was asked last.
    pub asked: Option<MigrateRequest>,
    /// How the drain stands, one answer after the other.
    pub drain: Vec<DrainView>,
    /// What `drain_host` was asked last.
    pub drained: Option<DrainRequest>,
}

pub struct Member {
    dir: TempDir,
    script: Arc<Mutex<Script>>,
}

impl Member {
    pub async fn start() -> Self {
        tls::install_crypto();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dir = TempDir::new().unwrap();
        let plan = ClusterPlan {
            name: "blue".into(),
            members: vec![format!("m1={address}").parse().unwrap()],
            hosts: vec!["h1=10.9.9.9:1".parse().unwrap()],
        };
        init(&dir.path().join("c"), &plan).unwrap();
        let script = Arc::new(Mutex::new(Script {
            no_leader: 0,
            run: None,
            status: ContainerStatus::Running,
            logs: Vec::new(),
            migrate: Vec::new(),
            migrated: None,
            estimate: Estimate::default(),
            cancel: None,
            asked: None,
            drain: Vec::new(),
            drained: None,
        }));
        let credentials = Credentials::load(&dir.path().join("c/members/m1")).unwrap();
        let config = credentials.server_config().unwrap();
        let served = ControlServer::new(Served(script.clone()));
        let incoming = tls::incoming(listener, config, "blue".into());
        tokio::spawn(
            Server::builder()
                .add_service(served)
                .serve_with_incoming(incoming),
        );
        Self { dir, script }
    }

    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    pub fn admin(&self) -> PathBuf {
        self.dir.path().join("c/admin")
    }

    pub async fn godwit(&self, args: &[&str]) -> Ran {
        Ran::of(&self.admin(), args).await
    }

    /// Our admin's directory with the address of another member.
    pub fn pointed_at(&self, other: &Self) -> TempDir {
        let dir = TempDir::new().unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            fs::copy(self.admin().join(name), dir.path().join(name)).unwrap();
        }
        fs::copy(
            other.admin().join("config.json"),
            dir.path().join("config.json"),
        )
        .unwrap();
        dir
    }

    /// The same, which also takes that member for what it says it is.
    pub fn trusting(&self, other: &Self) -> TempDir {
        let dir = self.pointed_at(other);
        fs::copy(other.admin().join("ca.pem"), dir.path().join("ca.pem")).unwrap();
        dir
    }
}

/// How the program ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub async fn of(admin: &Path, args: &[&str]) -> Self {
        let mut godwit = Command::new(env!("CARGO_BIN_EXE_godwit"));
        godwit.args(args).env("GODWIT_CONFIG", admin);
        let output = tokio::task::spawn_blocking(move || godwit.output().unwrap());
        let output = output.await.unwrap();
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub fn chunk(source: Source, text: &str, offset: u64) -> LogChunk {
    LogChunk {
        source: source.into(),
        data: text.as_bytes().to_vec().into(),
        offset,
    }
}

fn container(status: ContainerStatus) -> ContainerView {
    ContainerView {
        id: ContainerId::from_bytes([0xab; 32]),
        name: "redis".parse().unwrap(),
        status,
        host: "h1".parse().unwrap(),
        host_up: true,
        generation: Generation::FIRST,
        pid: None,
        created_ms: 1,
        migration: None,
        details: Default::default(),
        spec: ContainerSpec {
            name: "redis".parse().unwrap(),
            image: "redis".parse().unwrap(),
            image_id: Digest::from_sha256([1; 32]),
            command: Vec::new(),
            env: Vec::new(),
            limits: Limits::default(),
            network: None,
            hostname: String::new(),
            options: godwit_types::Options::default(),
        },
    }
}

pub fn migration(phase: Phase) -> MigrationView {
    MigrationView {
        id: MigrationId::from_bytes([1; 8]),
        container: ContainerId::from_bytes([0xab; 32]),
        name: "redis".parse().unwrap(),
        from: "h1".parse().unwrap(),
        to: "h2".parse().unwrap(),
        phase,
        error: (!phase.is_committed()).then(|| "dump failed".into()),
        note: None,
        failure: None,
        recovered: false,
        awaits: None,
        options: Default::default(),
        priority: Default::default(),
        place: None,
        rounds: Vec::new(),
        progress: None,
        started_ms: 1,
        times: MigrationTimes {
            freeze_us: 123_000,
            total_us: 456_000,
            predicted_freeze_us: 0,
            bytes: 12_897_485,
            steps: Vec::new(),
        },
    }
}

struct Served(Arc<Mutex<Script>>);

impl Served {
    fn script(&self) -> Result<MutexGuard<'_, Script>, Status> {
        let mut script = self.0.lock().unwrap();
        if script.no_leader > 0 {
            script.no_leader -= 1;
            return Err(Status::unavailable("no leader"));
        }
        Ok(script)
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

fn unasked<T>() -> Answer<T> {
    Err(Status::unimplemented("no test asks this"))
}

#[tonic::async_trait]
impl Control for Served {
    type LogsStream = Answers<LogChunk>;
    type MigrateStream = Answers<Document>;
    type BuildStream = Answers<Document>;
    type ImageWorkStream = Answers<Document>;
    type SaveImagesStream = Answers<SavedChunk>;

    async fn run(&self, _: Request<RunRequest>) -> Answer<Document> {
        match self.script()?.run.take() {
            Some(status) => Err(status),
            None => Ok(Response::new(document::write(&container(
                ContainerStatus::Running,
            )))),
        }
    }

    async fn list_containers(&self, _: Request<Empty>) -> Answer<Documents> {
        let status = self.script()?.status.clone();
        Ok(Response::new(document::write_all([container(status)])))
    }

    async fn inspect_container(&self, _: Request<ContainerRequest>) -> Answer<Document> {
        let status = self.script()?.status.clone();
        Ok(Response::new(document::write(&container(status))))
    }

    async fn stop_container(&self, _: Request<StopRequest>) -> Answer<Document> {
        let status = self.script()?.status.clone();
        Ok(Response::new(document::write(&container(status))))
    }

    async fn logs(&self, _: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        let mut script = self.script()?;
        let chunks = if script.logs.is_empty() {
            Vec::new()
        } else {
            script.logs.remove(0)
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    type ExecStream = Pin<Box<dyn Stream<Item = Result<SessionOutput, Status>> + Send>>;
    type AttachStream = Self::ExecStream;

    /// Says what comes in, and ends with how much that was.
    async fn exec(&self, request: Request<Streaming<SessionInput>>) -> Answer<Self::ExecStream> {
        use session_input::Input;
        use session_output::Output;
        let mut inputs = request.into_inner();
        let first = inputs.message().await?;
        let mut outputs = vec![Output::Started(true)];
        assert!(matches!(
            first.and_then(|first| first.input),
            Some(Input::Exec(_))
        ));
        let mut count = 0;
        while let Some(SessionInput { input }) = inputs.message().await? {
            match input {
                Some(Input::Data(data)) => {
                    count += data.len() as i32;
                    outputs.push(Output::Stdout(data));
                }
                _ => break,
            }
        }
        outputs.push(Output::Stderr("done\n".into()));
        outputs.push(Output::Exit(count));
        let outputs = outputs.into_iter().map(|output| {
            Ok(SessionOutput {
                output: Some(output),
            })
        });
        let outputs: Vec<_> = outputs.collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(outputs))))
    }

    async fn look(&self, _: Request<LookRequest>) -> Answer<Documents> {
        Ok(Response::new(Documents::default()))
    }

    async fn attach(&self, _: Request<Streaming<SessionInput>>) -> Answer<Self::AttachStream> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }

    async fn migrate(&self, request: Request<MigrateRequest>) -> Answer<Self::MigrateStream> {
        let mut script = self.script()?;
        let request = request.into_inner();
        script.asked = Some(request.clone());
        if request.dry_run {
            let only = Ok(document::write(&script.estimate));
            return Ok(Response::new(Box::pin(tokio_stream::once(only))));
        }
        let views = script.migrate.clone().into_iter();
        let views = views.map(|view| view.map(|view| document::write(&view)));
        Ok(Response::new(Box::pin(tokio_stream::iter(
            views.collect::<Vec<_>>(),
        ))))
    }

    async fn inspect_migration(&self, _: Request<MigrationRequest>) -> Answer<Document> {
        match self.script()?.migrated {
            Some(phase) => Ok(Response::new(document::write(&migration(phase)))),
            None => unasked(),
        }
    }

    async fn recover_migration(&self, _: Request<MigrationRequest>) -> Answer<Document> {
        Err(Status::unimplemented("recover"))
    }

    async fn cancel_migration(&self, _: Request<MigrationRequest>) -> Answer<Document> {
        match self.script()?.cancel.take() {
            Some(status) => Err(status),
            None => Ok(Response::new(document::write(&migration(Phase::Aborting)))),
        }
    }

    async fn list_members(&self, _: Request<Empty>) -> Answer<Documents> {
        drop(self.script()?);
        Ok(Response::new(Documents::default()))
    }

    async fn remove_container(&self, _: Request<RemoveRequest>) -> Answer<Empty> {
        unasked()
    }

    async fn load_image(&self, _: Request<Streaming<LoadImageChunk>>) -> Answer<LoadImageReply> {
        unasked()
    }

    async fn image_work(&self, _: Request<ImageWorkRequest>) -> Answer<Self::ImageWorkStream> {
        unasked()
    }

    async fn save_images(&self, _: Request<SaveImagesRequest>) -> Answer<Self::SaveImagesStream> {
        unasked()
    }

    async fn list_images(&self, _: Request<Empty>) -> Answer<Documents> {
        unasked()
    }

    async fn create_network(&self, _: Request<CreateNetworkRequest>) -> Answer<Document> {
        unasked()
    }

    async fn list_networks(&self, _: Request<Empty>) -> Answer<Documents> {
        unasked()
    }

    async fn list_hosts(&self, _: Request<Empty>) -> Answer<Documents> {
        unasked()
    }

    async fn drain_host(&self, request: Request<DrainRequest>) -> Answer<Document> {
        let mut script = self.script()?;
        script.drained = Some(request.into_inner());
        let first = script.drain.first().cloned();
        Ok(Response::new(document::write(&first.unwrap())))
    }

    async fn inspect_drain(&self, _: Request<HostRequest>) -> Answer<Document> {
        let mut script = self.script()?;
        let view = script.drain.remove(0);
        Ok(Response::new(document::write(&view)))
    }

    async fn create_container(&self, _: Request<RunRequest>) -> Answer<Document> {
        unasked()
    }

    async fn start_container(&self, _: Request<ContainerRequest>) -> Answer<Document> {
        unasked()
    }

    async fn restart_container(&self, _: Request<StopRequest>) -> Answer<Document> {
        unasked()
    }

    async fn kill_container(&self, _: Request<KillRequest>) -> Answer<Document> {
        unasked()
    }

    async fn pause_container(&self, _: Request<PauseRequest>) -> Answer<Document> {
        unasked()
    }

    async fn wait_container(&self, _: Request<ContainerRequest>) -> Answer<Document> {
        unasked()
    }

    async fn rename_container(&self, _: Request<RenameRequest>) -> Answer<Document> {
        unasked()
    }

    async fn update_container(&self, _: Request<UpdateRequest>) -> Answer<Document> {
        unasked()
    }

    async fn label_host(&self, _: Request<LabelHostRequest>) -> Answer<Empty> {
        unasked()
    }

    async fn activate_host(&self, _: Request<HostRequest>) -> Answer<Document> {
        unasked()
    }

    async fn set_limits(&self, request: Request<SetLimitsRequest>) -> Answer<Document> {
        let request = request.into_inner();
        let limits = MigrationLimits {
            cluster: request.cluster,
            ..MigrationLimits::default()
        };
        drop(self.script()?);
        Ok(Response::new(document::write(&limits)))
    }

    async fn inspect_network(&self, _: Request<NetworkRequest>) -> Answer<Document> {
        unasked()
    }

    async fn remove_network(&self, _: Request<NetworkRequest>) -> Answer<Empty> {
        unasked()
    }

    async fn create_volume(&self, _: Request<CreateVolumeRequest>) -> Answer<Document> {
        unasked()
    }

    async fn list_volumes(&self, _: Request<Empty>) -> Answer<Documents> {
        unasked()
    }

    async fn inspect_volume(&self, _: Request<VolumeRequest>) -> Answer<Document> {
        unasked()
    }

    async fn remove_volume(&self, _: Request<VolumeRequest>) -> Answer<Empty> {
        unasked()
    }

    async fn prune_volumes(&self, _: Request<PruneVolumesRequest>) -> Answer<Documents> {
        unasked()
    }

    async fn build(&self, _: Request<Streaming<AuthorChunk>>) -> Answer<Self::BuildStream> {
        unasked()
    }

    async fn import_image(&self, _: Request<Streaming<AuthorChunk>>) -> Answer<LoadImageReply> {
        unasked()
    }

    async fn commit_container(&self, _: Request<Document>) -> Answer<CommitReply> {
        unasked()
    }

    async fn list_migrations(&self, _: Request<Empty>) -> Answer<Documents> {
        unasked()
    }

    async fn add_member(&self, _: Request<AddMemberRequest>) -> Answer<Document> {
        unasked()
    }

    async fn remove_members(&self, _: Request<RemoveMembersRequest>) -> Answer<Document> {
        unasked()
    }

    async fn transfer_leader(&self, _: Request<MemberRequest>) -> Answer<Document> {
        unasked()
    }
}
