//! A container in front of the user, as `run` and `attach` have it: its log comes out, what is
//! typed and the signals of this program go in, wherever it moves.

use std::time::Duration;

use anyhow::{Context, bail};
use godwit_cli::{
    client::{Cluster, Control},
    exit_code::{self, INTERRUPTED},
    keys::{DetachKeys, Search},
    logs::Logs,
    session::Session,
};
use godwit_proto::control::ContainerRequest;
use godwit_types::{ContainerView, Status};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::sleep,
};

use super::{
    exec::{is_not_running, pass_on, receive},
    logs, run,
};
use crate::{
    options::Global,
    output::{self, Closed},
    terminal,
};

/// Between two looks at a container whose log has ended and whose end is not known yet.
const POLL: Duration = Duration::from_millis(100);
/// Between two attempts to reach a container that can't be typed into now.
const AGAIN: Duration = Duration::from_millis(300);
/// So often SIGINT is passed on before it ends this program.
const PATIENCE: u32 = 3;

/// How it is watched.
pub struct Watch {
    pub tty: bool,
    pub stdin: bool,
    pub keys: DetachKeys,
    pub sig_proxy: bool,
    /// Remove it once it has ended.
    pub removes: bool,
}

enum End {
    Code(u8),
    Detached,
    Interrupted,
}

/// Until it ends, is left, or this program is interrupted. Answers the exit code.
pub async fn watch(
    global: &Global,
    view: &ContainerView,
    mut logs: Logs,
    watch: Watch,
) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let mut other = global.cluster()?;
    let raw = match watch.tty && watch.stdin {
        true => terminal::Raw::begin()?,
        false => None,
    };
    let end = tokio::select! {
        code = follow(&mut cluster, view, &mut logs) => code.map(End::Code),
        end = control(&mut other, view, &watch) => end,
    };
    // Before anything is printed.
    drop(raw);
    match end {
        Ok(End::Code(code)) => {
            if watch.removes {
                run::remove(&mut cluster, view).await?;
            }
            Ok(code)
        }
        Ok(End::Detached) => {
            output::note("read escape sequence");
            Ok(0)
        }
        Ok(End::Interrupted) => {
            output::note(format_args!(
                "stopped following; `{name}` goes on running: `godwit stop {name}` stops it",
                name = view.name
            ));
            Ok(INTERRUPTED)
        }
        // Who read the output is gone; the container is not.
        Err(error) if error.is::<Closed>() => Ok(0),
        Err(error) => Err(error).with_context(|| format!("lost sight of `{}`", view.name)),
    }
}

async fn follow(
    cluster: &mut Cluster,
    view: &ContainerView,
    logs: &mut Logs,
) -> anyhow::Result<u8> {
    let request = ContainerRequest {
        container: view.id.to_string(),
    };
    loop {
        logs::pass_on(logs, cluster).await?;
        let call = async |mut control: Control| control.inspect_container(request.clone()).await;
        let document = cluster.ask(call).await?;
        let now: ContainerView = cluster.read(&document)?;
        match now.status {
            Status::Exited { exit } => return Ok(exit_code::of_container(exit.code)),
            Status::Failed { reason } => bail!("`{}` failed: {reason}", now.name),
            _ => sleep(POLL).await,
        }
    }
}

/// What goes in. Ends only when the container is left: its own end is seen by [`follow`].
async fn control(
    cluster: &mut Cluster,
    view: &ContainerView,
    watch: &Watch,
) -> anyhow::Result<End> {
    let mut inward = Inward {
        typed: watch.stdin.then(terminal::typed),
        keys: Search::new(watch.keys.clone()),
        signals: signals()?,
        tty: watch.tty,
        sig_proxy: watch.sig_proxy,
        interrupts: 0,
        at_end: false,
    };
    loop {
        match Session::attach(cluster, view.id.as_str()).await {
            Ok(session) => {
                if let Some(end) = inward.pass_on(cluster, session).await? {
                    return Ok(end);
                }
            }
            // It has ended, or has not begun to be seen as running.
            Err(error) if is_not_running(&error) || error.may_pass() => {}
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = sleep(AGAIN) => {}
            Some(number) = inward.signals.recv() => {
                if inward.interrupted(number) {
                    return Ok(End::Interrupted);
                }
            }
        }
    }
}

struct Inward {
    typed: Option<mpsc::Receiver<Vec<u8>>>,
    keys: Search,
    signals: mpsc::Receiver<i32>,
    tty: bool,
    sig_proxy: bool,
    interrupts: u32,
    /// Standard input has ended: said again to whoever is asked next.
    at_end: bool,
}

impl Inward {
    /// Until the connection breaks, or the container is left.
    async fn pass_on(
        &mut self,
        cluster: &mut Cluster,
        mut session: Session,
    ) -> anyhow::Result<Option<End>> {
        let sender = session.input.clone();
        let mut resized = terminal::resized()?;
        if let Some(size) = terminal::size().filter(|_| self.tty) {
            sender.resize(size).await;
        }
        if self.at_end {
            sender.end().await;
        }
        loop {
            tokio::select! {
                said = session.next(cluster) => match said {
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok(None),
                    Err(error) if error.may_pass() || is_not_running(&error) => return Ok(None),
                    // Why it can't be reached now is for the log's stream to judge.
                    Err(_) => return Ok(None),
                },
                data = receive(&mut self.typed) => {
                    self.at_end |= data.is_none();
                    if pass_on(&sender, data, self.tty, &mut self.keys).await {
                        sender.detach().await;
                        while let Ok(Some(_)) = session.next(cluster).await {}
                        return Ok(Some(End::Detached));
                    }
                }
                Some(number) = self.signals.recv() => {
                    if self.interrupted(number) {
                        return Ok(Some(End::Interrupted));
                    }
                    sender.signal(number).await;
                }
                _ = resized.recv(), if self.tty => {
                    if let Some(size) = terminal::size() {
                        sender.resize(size).await;
                    }
                }
            }
        }
    }

    /// Whether this signal ends this program, and is not for the container.
    fn interrupted(&mut self, number: i32) -> bool {
        if number == SignalKind::interrupt().as_raw_value() {
            self.interrupts += 1;
        }
        !self.sig_proxy || self.interrupts > PATIENCE
    }
}

/// Those that a container may want to hear of.
fn signals() -> anyhow::Result<mpsc::Receiver<i32>> {
    let (sender, receiver) = mpsc::channel(8);
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ];
    for kind in kinds {
        let mut signals = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() && sender.send(kind.as_raw_value()).await.is_ok() {
            }
        });
    }
    Ok(receiver)
}
