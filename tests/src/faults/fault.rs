//! What breaks, and how it is mended.

use std::{fmt, fs, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    command::run,
    testbed::{Cluster, PATIENCE},
};

/// Whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Source,
    Destination,
    Leader,
    /// A member that does not lead.
    Follower,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Agent,
    Shim,
    Criu,
    Member,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Both,
    In,
    Out,
}

/// What a person does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    Cancel,
    Stop,
    Remove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; daemons are started again.
    Kill(Whose, Program),
    /// SIGSTOP for [`LONG`].
    Stop(Whose, Program),
    /// Its host's link, for [`LONG`].
    Cut(Whose, Way),
    /// No byte more fits on the disk, for [`LONG`].
    Full(Whose, Program),
    /// Every connection between source and destination is reset.
    Reset,
    /// Every command to its agent comes twice, from now on.
    Twice(Whose),
    /// After every command to its agent those before it come once more, from now on.
    Late(Whose),
    User(Does),
}

/// Longer than it takes to be noticed.
const LONG: Duration = Duration::from_secs(5);
/// Between a daemon's death and its next start, as a service manager would wait.
const RESTART: Duration = Duration::from_millis(500);

impl Fault {
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for whose in [Whose::Source, Whose::Destination] {
            for program in [Program::Agent, Program::Shim, Program::Criu] {
                all.push(Self::Kill(whose, program));
            }
            for program in [Program::Agent, Program::Shim] {
                all.push(Self::Stop(whose, program));
            }
            all.push(Self::Full(whose, Program::Agent));
        }
        for whose in [Whose::Leader, Whose::Follower] {
            all.push(Self::Kill(whose, Program::Member));
            all.push(Self::Stop(whose, Program::Member));
        }
        all.push(Self::Full(Whose::Leader, Program::Member));
        for whose in [Whose::Source, Whose::Destination, Whose::Leader] {
            for way in [Way::Both, Way::In, Way::Out] {
                all.push(Self::Cut(whose, way));
            }
        }
        all.push(Self::Reset);
        for whose in [Whose::Source, Whose::Destination] {
            all.extend([Self::Twice(whose), Self::Late(whose)]);
        }
        all.extend([Does::Cancel, Does::Stop, Does::Remove].map(Self::User));
        all
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |value: &dyn fmt::Debug| format!("{value:?}").to_lowercase();
        match self {
            Self::Kill(whose, program) => write!(f, "kill {} {}", word(whose), word(program)),
            Self::Stop(whose, program) => write!(f, "stop {} {}", word(whose), word(program)),
            Self::Cut(whose, Way::Both) => write!(f, "cut {}", word(whose)),
            Self::Cut(whose, way) => write!(f, "cut {} {}", word(whose), word(way)),
            Self::Full(whose, Program::Member) => write!(f, "full disk {} member", word(whose)),
            Self::Full(whose, _) => write!(f, "full disk {}", word(whose)),
            Self::Reset => f.write_str("reset connections"),
            Self::Twice(whose) => write!(f, "commands twice {}", word(whose)),
            Self::Late(whose) => write!(f, "commands late {}", word(whose)),
            Self::User(does) => write!(f, "user {}", word(does)),
        }
    }
}

/// Who is who in a cell, by the numbers of their hosts.
#[derive(Debug, Clone, Copy)]
pub struct Cast {
    pub source: u8,
    pub destination: u8,
    pub leader: u8,
}

impl Cast {
    pub fn host(&self, whose: Whose) -> u8 {
        match whose {
            Whose::Source | Whose::Follower => self.source,
            Whose::Destination => self.destination,
            Whose::Leader => self.leader,
        }
    }
}

/// Something is broken. None of it lasts longer than [`mend`](Broken::mend).
pub enum Broken {
    Agent(u8),
    Member(u8),
    Stopped(Vec<i32>),
    Cut(u8),
    Full(u8, &'static str),
    Nothing,
}

/// Breaks it. An error: it can't be, or there is nothing to break.
pub fn inject(
    cluster: &mut Cluster,
    cast: &Cast,
    fault: Fault,
    container: &str,
    migration: &str,
) -> Result<Broken> {
    let id = cluster.id(container)?;
    match fault {
        Fault::Kill(whose, Program::Agent) => {
            let host = cast.host(whose);
            cluster.kill(host, "godwit-agent")?;
            Ok(Broken::Agent(host))
        }
        Fault::Kill(whose, Program::Member) => {
            let host = cast.host(whose);
            cluster.kill(host, "godwit-controller")?;
            Ok(Broken::Member(host))
        }
        Fault::Kill(whose, program) => {
            for pid in found(cluster, cast.host(whose), program, &id)? {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            Ok(Broken::Nothing)
        }
        Fault::Stop(whose, program) => {
            let pids = found(cluster, cast.host(whose), program, &id)?;
            for pid in &pids {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGSTOP);
            }
            Ok(Broken::Stopped(pids))
        }
        Fault::Cut(whose, way) => {
            let host = cast.host(whose);
            let rule = |hook: &str, name: &str| {
                format!(
                    "add chain inet cut {hook} {{ type filter hook {hook} priority -300; }}\n\
                     add rule inet cut {hook} {name} eth0 drop\n"
                )
            };
            let mut rules = "add table inet cut\n".to_owned();
            if way != Way::Out {
                rules += &rule("input", "iifname");
            }
            if way != Way::In {
                rules += &rule("output", "oifname");
            }
            nft(cluster, host, &rules)?;
            Ok(Broken::Cut(host))
        }
        Fault::Full(whose, program) => {
            let host = cast.host(whose);
            let what = match program {
                Program::Member => "member",
                _ => "data",
            };
            let filler = cluster.host(host).dir.join(what).join("filler");
            let mut fill = cluster.host(host).command("dd", &["if=/dev/zero", "bs=4k"]);
            fill.arg(format!("of={}", filler.display()));
            // It ends when nothing fits any more.
            let _ = fill.output().context("`dd` can't be started")?;
            Ok(Broken::Full(host, what))
        }
        Fault::Reset => {
            let rule = |port: &str| {
                format!("add rule inet torn input tcp {port} 7700 reject with tcp reset\n")
            };
            let rules = "add table inet torn\n\
                 add chain inet torn input { type filter hook input priority -300; }\n"
                .to_owned()
                + &rule("dport")
                + &rule("sport");
            for host in [cast.source, cast.destination] {
                nft(cluster, host, &rules)?;
            }
            thread::sleep(Duration::from_millis(300));
            for host in [cast.source, cast.destination] {
                nft(cluster, host, "delete table inet torn\n")?;
            }
            Ok(Broken::Nothing)
        }
        Fault::Twice(whose) | Fault::Late(whose) => {
            let what = match fault {
                Fault::Late(_) => "late",
                _ => "twice",
            };
            // Until the next cell.
            cluster.hold(cast.host(whose), what)?.wait(PATIENCE)?;
            Ok(Broken::Nothing)
        }
        Fault::User(does) => {
            let arguments: &[&str] = match does {
                Does::Cancel => &["migration", "cancel", migration],
                Does::Stop => &["stop", "-t", "1", container],
                Does::Remove => &["rm", "-f", container],
            };
            // What it answers is its own matter: done, or refused with the reason.
            let mut command = cluster.godwit(arguments);
            thread::spawn(move || command.output());
            thread::sleep(Duration::from_millis(200));
            Ok(Broken::Nothing)
        }
    }
}

fn found(cluster: &Cluster, host: u8, program: Program, id: &str) -> Result<Vec<i32>> {
    let name = match program {
        Program::Agent => "godwit-agent",
        Program::Shim => "godwit-shim",
        Program::Criu => "criu",
        Program::Member => "godwit-controller",
    };
    let pids = match program {
        // Not that of the witness.
        Program::Shim => cluster.shims(host, id)?,
        _ => cluster.host(host).processes(name)?,
    };
    ensure!(!pids.is_empty(), "no `{name}` runs on h{host} then");
    Ok(pids)
}

fn nft(cluster: &Cluster, host: u8, rules: &str) -> Result<()> {
    let file = cluster.host(host).dir.join("rules.nft");
    fs::write(&file, rules)?;
    let mut command = cluster.host(host).command("nft", &["-f"]);
    command.arg(&file);
    run(command).map(drop)
}

impl Broken {
    /// How long it stays broken while everything else goes on.
    pub fn lasts(&self) -> Duration {
        match self {
            Self::Agent(_) | Self::Member(_) => RESTART,
            Self::Stopped(_) | Self::Cut(_) | Self::Full(..) => LONG,
            Self::Nothing => Duration::ZERO,
        }
    }

    pub fn mend(self, cluster: &mut Cluster) -> Result<()> {
        match self {
            Self::Agent(host) => cluster.start_agent(host, &[], false),
            Self::Member(host) => cluster.start_member(host, false),
            Self::Stopped(pids) => {
                for pid in pids {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
                }
                Ok(())
            }
            Self::Cut(host) => nft(cluster, host, "delete table inet cut\n"),
            Self::Full(host, what) => {
                let filler = cluster.host(host).dir.join(what).join("filler");
                let mut remove = cluster.host(host).command("rm", &["-f"]);
                remove.arg(filler);
                run(remove)?;
                // A member that can't write any more ends, and whoever looks after it starts it
                // again. Two of three without that, and there is no leader.
                if what == "member"
                    && cluster
                        .host(host)
                        .processes("godwit-controller")?
                        .is_empty()
                {
                    cluster.start_member(host, false)?;
                }
                Ok(())
            }
            Self::Nothing => Ok(()),
        }
    }
}

/// Checks that every fault has its name only once.
pub fn distinct(all: &[Fault]) -> Result<()> {
    let mut names: Vec<String> = all.iter().map(ToString::to_string).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    ensure!(names.len() == count, "two faults have one name");
    Ok(())
}
