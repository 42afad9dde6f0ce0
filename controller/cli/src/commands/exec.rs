//! `godwit exec`.

use std::{env, io};

use anyhow::bail;
use godwit_cli::{
    client::Cluster,
    env::resolve,
    error::ClientError,
    exit_code,
    keys::{DetachKeys, Search},
    session::{Said, Sender, Session},
};
use godwit_types::ExecRequest;
use tokio::sync::mpsc;

use crate::{
    options::Global,
    output::{self, failure},
    terminal,
};

/// Start a program in a container that runs
///
/// Its exit code becomes this program's. Exit codes of its own: 126 when the program can't be
/// executed, 127 when it does not exist, 137 when the container moved to another host meanwhile:
/// what `exec` started does not move with it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Return once it has begun, and leave it to run
    #[arg(short, long)]
    detach: bool,
    /// The user, as `user[:group]` [default: the container's]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// The working directory in the container [default: the container's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Set an environment variable; KEY alone takes its value from here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Give it all capabilities that the host has
    #[arg(long)]
    privileged: bool,
    /// The keys that leave it to itself [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Name, id, or the beginning of an id
    container: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    if args.tty && args.interactive && !args.detach && !terminal::is_terminal() {
        bail!("the input device is not a TTY: leave out `-t`");
    }
    let request = ExecRequest {
        container: args.container,
        command: args.command,
        env: resolve(&args.env, |key| env::var_os(key))?,
        working_dir: args.workdir.unwrap_or_default(),
        user: args.user.unwrap_or_default(),
        tty: args.tty,
        stdin: args.interactive && !args.detach,
        detach: args.detach,
        privileged: args.privileged,
        size: terminal::size().filter(|_| args.tty),
    };
    let mut cluster = global.cluster()?;
    let session = match Session::exec(&mut cluster, &request).await {
        Ok(session) => session,
        Err(error) => {
            let code = match exit_code::of_start(error.problem()) {
                exit_code::NOT_STARTED => 1,
                code => code,
            };
            failure::report(&error.into());
            return Ok(code);
        }
    };
    if args.detach {
        return Ok(0);
    }
    let keys = Search::new(args.detach_keys.unwrap_or_default());
    let raw = match request.tty && request.stdin {
        true => terminal::Raw::begin()?,
        false => None,
    };
    let ended = talk(&mut cluster, session, &request, keys).await;
    // Before anything is printed.
    drop(raw);
    match ended? {
        End::Exit(code) => Ok(exit_code::of_container(code)),
        End::Detached => Ok(0),
        End::Moved { migration, to } => {
            let host = match to.as_str() {
                "" => "another host".to_owned(),
                to => format!("host `{to}`"),
            };
            output::note(format_args!(
                "exec ended: container `{}` moves to {host} (migration {migration}), and what \
                 `exec` started stays behind; it can be started again there",
                request.container
            ));
            Ok(exit_code::KILLED)
        }
    }
}

enum End {
    Exit(i32),
    Detached,
    Moved { migration: String, to: String },
}

async fn talk(
    cluster: &mut Cluster,
    mut session: Session,
    request: &ExecRequest,
    mut keys: Search,
) -> anyhow::Result<End> {
    let mut typed = request.stdin.then(terminal::typed);
    let mut resized = terminal::resized()?;
    let sender = session.input.clone();
    loop {
        tokio::select! {
            said = session.next(cluster) => match said? {
                Some(Said::Stdout(data)) => output::bytes(&mut io::stdout().lock(), &data)?,
                Some(Said::Stderr(data)) => output::bytes(&mut io::stderr().lock(), &data)?,
                Some(Said::Exit(code)) => return Ok(End::Exit(code)),
                Some(Said::Moved { migration, to }) => return Ok(End::Moved { migration, to }),
                None => bail!("the session broke off: its host or the leader is gone"),
            },
            data = receive(&mut typed) => {
                if pass_on(&sender, data, request.tty, &mut keys).await {
                    sender.detach().await;
                    // Until the other side has heard it.
                    while let Ok(Some(_)) = session.next(cluster).await {}
                    return Ok(End::Detached);
                }
            }
            _ = resized.recv(), if request.tty => {
                if let Some(size) = terminal::size() {
                    sender.resize(size).await;
                }
            }
        }
    }
}

/// What is typed next; None: its end, which comes once.
pub async fn receive(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match typed {
        Some(receiver) => {
            let data = receiver.recv().await;
            if data.is_none() {
                *typed = None;
            }
            data
        }
        None => std::future::pending().await,
    }
}

/// Whether the keys that leave were typed.
pub async fn pass_on(sender: &Sender, data: Option<Vec<u8>>, tty: bool, keys: &mut Search) -> bool {
    match data {
        Some(data) if tty => {
            let (data, leaves) = keys.feed(&data);
            if !data.is_empty() {
                sender.data(data).await;
            }
            leaves
        }
        Some(data) => {
            sender.data(data).await;
            false
        }
        None => {
            sender.end().await;
            false
        }
    }
}

/// For commands that report a failure themselves.
pub fn is_not_running(error: &ClientError) -> bool {
    use godwit_proto::failure::Problem;
    use godwit_types::Refusal;
    matches!(
        error.problem(),
        Some(Problem::Refused(
            Refusal::NotRunning { .. } | Refusal::UnknownContainer { .. }
        ))
    )
}
