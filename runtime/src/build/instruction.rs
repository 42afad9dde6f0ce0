//! Instructions as they were written: nothing is expanded yet.

/// One instruction of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Where it begins, from 1.
    pub line: u32,
    /// As it is shown: one line, as it was written.
    pub text: String,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    From {
        platform: Option<String>,
        base: String,
        name: Option<String>,
    },
    Arg(Vec<(String, Option<String>)>),
    /// Names and values, as words that are still to be expanded.
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run(Run),
    /// `COPY` and `ADD`.
    Copy(Copy),
    Cmd(Command),
    Entrypoint(Command),
    Shell(Vec<String>),
    Volume(Vec<String>),
    Expose(Vec<String>),
    Workdir(String),
    User(String),
    StopSignal(String),
    Healthcheck(Health),
    /// The instruction that the next build runs, as it was written.
    Onbuild(String),
    Maintainer(String),
}

/// A command in its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A line for the shell.
    Shell(String),
    /// `["program", "argument"]`
    Exec(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub command: Command,
    pub heredocs: Vec<Heredoc>,
    /// The line is one heredoc and nothing else: its text is the script.
    pub script: bool,
    pub network: Network,
}

/// What a step's network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    #[default]
    Default,
    None,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it: what `COPY` calls the file.
    pub name: String,
    /// Variables in it are expanded, by whoever reads it.
    pub expand: bool,
    pub text: String,
    /// `<<-`: without the tabs at the beginning of lines.
    pub chomp: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// `ADD`: archives are unpacked.
    pub add: bool,
    pub from: Option<String>,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub sources: Vec<Source>,
    pub dest: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Path(String),
    Text(Heredoc),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    None,
    /// Times in nanoseconds, as the configuration has them; 0: not said.
    Check {
        command: Command,
        interval: u64,
        timeout: u64,
        start_period: u64,
        start_interval: u64,
        retries: u64,
    },
}
