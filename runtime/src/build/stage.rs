//! One stage's configuration as its instructions change it. Pure: files are others' matter.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    error::Refused,
    expand::{expand, split},
    instruction::{Command, Copy, Health, Instruction, Kind, Run, Source},
    key::Key,
    values::{expand_ports, inside, is_signal, normalized, plain},
};
use crate::image::author::Document;

const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// Arguments that need no `ARG`, and that no step's result depends on.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What `ARG` may take its values from.
#[derive(Debug, Clone, Default)]
pub struct Arguments {
    /// The caller's, by `--build-arg`.
    pub given: BTreeMap<String, String>,
    /// Of the `ARG`s before the first `FROM`, and the platform's.
    pub globals: BTreeMap<String, String>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Stage {
    pub document: Document,
    pub key: Key,
    arguments: BTreeMap<String, String>,
    /// `CMD` came after `FROM`: an `ENTRYPOINT` leaves it.
    commanded: bool,
    escape: char,
}

/// A copy with all its words expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    pub sources: Vec<Source>,
    /// Absolute; a directory where it ends with `/`.
    pub dest: String,
    pub chown: Option<String>,
    pub chmod: Option<u32>,
}

/// The platform's arguments, this host's.
pub(super) fn platform() -> BTreeMap<String, String> {
    let here = crate::image::platform();
    let (os, arch) = here.split_once('/').unwrap_or(("linux", ""));
    ["TARGET", "BUILD"]
        .iter()
        .flat_map(|side| {
            [
                ("PLATFORM", here.as_str()),
                ("OS", os),
                ("ARCH", arch),
                ("VARIANT", ""),
            ]
            .map(|(what, value)| (format!("{side}{what}"), value.to_owned()))
        })
        .collect()
}

impl Stage {
    pub fn new(document: Document, key: Key, escape: char) -> Self {
        Self {
            document,
            key,
            arguments: BTreeMap::new(),
            commanded: false,
            escape,
        }
    }

    /// As a stage `FROM` this one begins: its arguments are its own.
    pub fn child(&self) -> Self {
        Self {
            arguments: BTreeMap::new(),
            commanded: false,
            ..self.clone()
        }
    }

    /// The triggers of the image, which are run once.
    pub fn take_triggers(&mut self) -> Vec<String> {
        let triggers = self.document.list("OnBuild");
        self.document.config_mut().remove("OnBuild");
        triggers
    }

    fn look(&self, name: &str) -> Option<String> {
        let env = self.document.list("Env");
        let mut env = env.iter().filter_map(|entry| entry.split_once('='));
        env.find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .or_else(|| self.arguments.get(name).cloned())
    }

    fn expand(&self, word: &str) -> Result<String, Refused> {
        expand(word, self.escape, &|name| self.look(name))
    }

    fn expand_all(&self, words: &[String]) -> Result<Vec<String>, Refused> {
        words.iter().map(|word| self.expand(word)).collect()
    }

    /// What changes the configuration alone. False: the instruction is of another kind, and
    /// nothing was done.
    pub fn apply(
        &mut self,
        instruction: &Instruction,
        arguments: &Arguments,
    ) -> Result<bool, Refused> {
        let said = match &instruction.kind {
            Kind::Run(_) | Kind::Copy(_) | Kind::From { .. } => return Ok(false),
            Kind::Workdir(path) => {
                let path = self.workdir(path)?;
                self.document.set("WorkingDir", json!(path));
                path
            }
            Kind::Arg(all) => {
                let mut said = Vec::new();
                for (name, default) in all {
                    let default = default.as_ref().map(|word| self.expand(word)).transpose()?;
                    let given = arguments.given.get(name).cloned();
                    let value = given
                        .or(default)
                        .or_else(|| arguments.globals.get(name).cloned());
                    if let Some(value) = value {
                        // Of several lines it may be.
                        if value.contains('\0') {
                            return Err(Refused::Control);
                        }
                        self.arguments.insert(name.clone(), value);
                    }
                    said.push(name.clone());
                }
                // What an argument is counts where it is used.
                said.join(" ")
            }
            Kind::Env(pairs) => {
                let pairs = self.pairs(pairs)?;
                for (name, value) in &pairs {
                    self.document.set_env(name, value);
                }
                json!(pairs).to_string()
            }
            Kind::Label(pairs) => {
                let pairs = self.pairs(pairs)?;
                for (name, value) in &pairs {
                    self.document.set_in("Labels", name, json!(value));
                }
                json!(pairs).to_string()
            }
            Kind::Cmd(command) => {
                self.commanded = true;
                let words = self.words(command);
                self.document.set("Cmd", json!(words));
                json!(words).to_string()
            }
            Kind::Entrypoint(command) => {
                let words = self.words(command);
                self.document.set("Entrypoint", json!(words));
                // One that the base image has belongs to another entry point.
                if !self.commanded {
                    self.document.config_mut().remove("Cmd");
                }
                json!(words).to_string()
            }
            Kind::Shell(words) => {
                self.document.set("Shell", json!(words));
                json!(words).to_string()
            }
            Kind::Volume(words) => {
                let words = self.expand_all(words)?;
                for word in &words {
                    plain(word)?;
                    self.document.set_in("Volumes", word, json!({}));
                }
                json!(words).to_string()
            }
            Kind::Expose(words) => {
                let mut ports = Vec::new();
                for word in words {
                    // One variable may hold several.
                    for word in split(&self.expand(word)?, self.escape) {
                        ports.extend(expand_ports(&word)?);
                    }
                }
                for port in &ports {
                    self.document.set_in("ExposedPorts", port, json!({}));
                }
                json!(ports).to_string()
            }
            Kind::User(user) => {
                let user = self.expand(user)?;
                plain(&user)?;
                if user.is_empty() {
                    return Err(Refused::Arguments("USER", "a user"));
                }
                self.document.set("User", json!(user));
                user
            }
            Kind::StopSignal(signal) => {
                let signal = self.expand(signal)?;
                if !is_signal(&signal) {
                    return Err(Refused::invalid(&signal, "it is no signal"));
                }
                self.document.set("StopSignal", json!(signal));
                signal
            }
            Kind::Healthcheck(health) => {
                let value = self.health(health);
                let said = value.to_string();
                self.document.set("Healthcheck", value);
                said
            }
            Kind::Onbuild(text) => {
                let mut triggers = self.document.list("OnBuild");
                triggers.push(text.clone());
                self.document.set("OnBuild", json!(triggers));
                text.clone()
            }
            Kind::Maintainer(text) => {
                self.document.set_author(text);
                text.clone()
            }
        };
        let name = super::parse::name(&instruction.kind);
        self.key = self.key.then(&[name.as_bytes(), said.as_bytes()]);
        Ok(true)
    }

    fn pairs(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>, Refused> {
        pairs
            .iter()
            .map(|(name, value)| {
                let (name, value) = (self.expand(name)?, self.expand(value)?);
                if name.is_empty() || name.contains('=') || name.contains('\0') {
                    return Err(Refused::invalid(&name, "it is no name"));
                }
                if value.contains('\0') {
                    return Err(Refused::Control);
                }
                Ok((name, value))
            })
            .collect()
    }

    fn workdir(&self, path: &str) -> Result<String, Refused> {
        let path = self.expand(path)?;
        plain(&path)?;
        if path.is_empty() {
            return Err(Refused::Arguments("WORKDIR", "a path"));
        }
        Ok(self.absolute(&path))
    }

    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            return normalized(path);
        }
        normalized(&format!("{}/{path}", self.document.text("WorkingDir")))
    }

    fn shell(&self) -> Vec<String> {
        let shell = self.document.list("Shell");
        if shell.is_empty() {
            return SHELL.map(str::to_owned).to_vec();
        }
        shell
    }

    fn words(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) if line.is_empty() => Vec::new(),
            Command::Shell(line) => {
                let mut words = self.shell();
                words.push(line.clone());
                words
            }
        }
    }

    /// The command of a `RUN`.
    pub fn command(&self, run: &Run) -> Vec<String> {
        let Command::Shell(line) = &run.command else {
            return self.words(&run.command);
        };
        let mut words = self.shell();
        let script = run.heredocs.first().filter(|_| run.script);
        if let Some(heredoc) = script {
            // One that names its interpreter is that one's; where it lies, the shell puts it.
            let text = match heredoc.text.strip_prefix("#!") {
                Some(_) => interpreted(&heredoc.text),
                None => heredoc.text.clone(),
            };
            words.push(text);
            return words;
        }
        let mut text = line.clone();
        for heredoc in &run.heredocs {
            text.push('\n');
            text.push_str(&heredoc.text);
            text.push_str(&heredoc.name);
        }
        if !run.heredocs.is_empty() {
            text.push('\n');
        }
        words.push(text);
        words
    }

    /// `KEY=value` that a `RUN` sees besides the image's environment: the arguments in scope.
    pub fn environment(&self, arguments: &Arguments) -> Vec<String> {
        let env = self.document.list("Env");
        let is_set = |name: &str| {
            env.iter()
                .any(|entry| entry.split('=').next() == Some(name))
        };
        let proxies = PROXIES
            .iter()
            .filter(|name| !self.arguments.contains_key(**name))
            .filter_map(|name| Some(((*name).to_owned(), arguments.given.get(*name)?.clone())));
        self.arguments
            .clone()
            .into_iter()
            .chain(proxies)
            .filter(|(name, _)| !is_set(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    /// The key after a `RUN`. Where proxies lead does not count.
    pub fn run_key(&self, run: &Run) -> Key {
        let command = json!(self.command(run)).to_string();
        let arguments = json!(self.arguments).to_string();
        let network = format!("{:?}", run.network);
        self.key.then(&[
            b"RUN",
            command.as_bytes(),
            arguments.as_bytes(),
            network.as_bytes(),
        ])
    }

    /// The key after a copy of what has this digest.
    pub fn copy_key(&self, copy: &Copy, expanded: &Expanded, content: &[u8]) -> Key {
        let verb: &[u8] = if copy.add { b"ADD" } else { b"COPY" };
        let owner = expanded.chown.as_deref().unwrap_or("-");
        let mode = expanded
            .chmod
            .map_or_else(|| "-".to_owned(), |mode| mode.to_string());
        let from = if copy.from.is_some() {
            b"from"
        } else {
            b"here"
        };
        let parts = [
            verb,
            from,
            expanded.dest.as_bytes(),
            owner.as_bytes(),
            mode.as_bytes(),
        ];
        self.key.then(&parts).then(&[content])
    }

    pub fn expand_copy(&self, copy: &Copy) -> Result<Expanded, Refused> {
        let sources = copy.sources.iter().map(|source| {
            Ok(match source {
                Source::Path(path) => {
                    let path = self.expand(path)?;
                    plain(&path)?;
                    Source::Path(inside(&path)?)
                }
                Source::Text(heredoc) if heredoc.expand => {
                    let mut heredoc = heredoc.clone();
                    heredoc.text = expand_text(&heredoc.text, &|name| self.look(name));
                    Source::Text(heredoc)
                }
                Source::Text(heredoc) => Source::Text(heredoc.clone()),
            })
        });
        let dest = self.expand(&copy.dest)?;
        plain(&dest)?;
        let mut absolute = self.absolute(&dest);
        let is_directory =
            dest.ends_with('/') || matches!(dest.rsplit('/').next(), Some("." | ".."));
        if is_directory && !absolute.ends_with('/') {
            absolute.push('/');
        }
        let chown = copy
            .chown
            .as_ref()
            .map(|text| self.expand(text))
            .transpose()?;
        let chmod = copy
            .chmod
            .as_ref()
            .map(|text| self.expand(text))
            .transpose()?;
        let chmod = chmod
            .map(|text| {
                u32::from_str_radix(&text, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o7777 && !text.starts_with('+'))
                    .ok_or_else(|| Refused::invalid(&text, "a mode is octal, as in `755`"))
            })
            .transpose()?;
        Ok(Expanded {
            sources: sources.collect::<Result<_, _>>()?,
            dest: absolute,
            chown,
            chmod,
        })
    }

    fn health(&self, health: &Health) -> Value {
        let Health::Check {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } = health
        else {
            return json!({"Test": ["NONE"]});
        };
        let mut test = vec!["CMD".to_owned()];
        match command {
            Command::Exec(words) => test.extend(words.iter().cloned()),
            Command::Shell(line) => test = vec!["CMD-SHELL".to_owned(), line.clone()],
        }
        let mut value = json!({"Test": test});
        for (key, number) in [
            ("Interval", interval),
            ("Timeout", timeout),
            ("StartPeriod", start_period),
            ("StartInterval", start_interval),
            ("Retries", retries),
        ] {
            if *number > 0 {
                value[key] = json!(number);
            }
        }
        value
    }
}

/// A script with its own interpreter, for the shell to write down and hand over. Where it lies
/// nothing can be executed, so the line is read here as the kernel would.
fn interpreted(text: &str) -> String {
    let mut end = "GODWIT_SCRIPT".to_owned();
    while text.lines().any(|line| line == end) {
        end.push('_');
    }
    let first = text.lines().next().unwrap_or_default();
    let line = first.trim_start_matches("#!").trim();
    // All that follows the interpreter is one argument.
    let (program, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let words = [program, argument.trim()];
    let words: Vec<_> = words
        .into_iter()
        .filter(|word| !word.is_empty())
        .map(quoted)
        .collect();
    let words = words.join(" ");
    format!("f=/dev/shm/script && cat > $f <<'{end}' && exec {words} $f\n{text}{end}\n")
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Variables in the text of a heredoc; quotes are text like any other.
fn expand_text(text: &str, look: super::expand::Words<'_>) -> String {
    let quoted: String = text
        .chars()
        .flat_map(|c| match c {
            '"' | '\'' => vec!['\\', c],
            c => vec![c],
        })
        .collect();
    // What is no variable after all stays as it was written.
    expand(&quoted, '\\', look).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{changes, parse};

    fn stage() -> Stage {
        Stage::new(Document::empty(), Key::begin("x"), '\\')
    }

    fn arguments() -> Arguments {
        Arguments {
            given: BTreeMap::from([
                ("V".into(), "given".into()),
                ("http_proxy".into(), "p".into()),
            ]),
            globals: BTreeMap::from([("G".into(), "global".into())]),
        }
    }

    fn apply(stage: &mut Stage, texts: &[&str]) {
        let texts: Vec<_> = texts.iter().map(|&text| text.to_owned()).collect();
        for instruction in changes("f", 1, &texts).unwrap() {
            assert!(stage.apply(&instruction, &arguments()).unwrap());
        }
    }

    fn of(text: &str) -> Kind {
        let file = parse("f", &format!("FROM x\n{text}")).unwrap();
        file.instructions[1].kind.clone()
    }

    #[test]
    fn instructions_become_the_configuration() {
        let mut stage = stage();
        apply(
            &mut stage,
            &[
                "ARG V=default G H=h",
                "ENV A=$V B=\"${G} $H\" V=env",
                "LABEL l=\"$B\" m=n",
                "WORKDIR /a",
                "WORKDIR ../b/./c",
                "USER $A:1",
                "EXPOSE 80 53/udp 8000-8001",
                "VOLUME /v \"/w\"",
                "STOPSIGNAL SIGQUIT",
                "SHELL [\"/bin/ash\", \"-c\"]",
                "CMD echo $A",
                "HEALTHCHECK --interval=5s CMD true",
            ],
        );
        let config = Value::Object(stage.document.config().clone());
        assert_eq!(config["Env"], json!(["A=given", "B=global h", "V=env"]));
        assert_eq!(config["Labels"], json!({"l": "global h", "m": "n"}));
        assert_eq!(config["WorkingDir"], "/b/c");
        assert_eq!(config["User"], "given:1");
        assert_eq!(
            config["ExposedPorts"],
            json!({"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}})
        );
        assert_eq!(config["Volumes"], json!({"/v": {}, "/w": {}}));
        assert_eq!(config["Cmd"], json!(["/bin/ash", "-c", "echo $A"]));
        assert_eq!(config["Healthcheck"]["Interval"], 5_000_000_000_u64);
        assert_eq!(
            stage.environment(&arguments()),
            ["G=global", "H=h", "http_proxy=p"]
        );
    }

    #[test]
    fn an_entry_point_takes_the_bases_command_away_and_not_ones_own() {
        let mut stage = stage();
        stage.document.set("Cmd", json!(["old"]));
        apply(&mut stage, &["ENTRYPOINT [\"e\"]"]);
        assert!(stage.document.list("Cmd").is_empty());
        apply(&mut stage, &["CMD [\"c\"]", "ENTRYPOINT e f"]);
        assert_eq!(stage.document.list("Cmd"), ["c"]);
        assert_eq!(stage.document.list("Entrypoint"), ["/bin/sh", "-c", "e f"]);
    }

    #[test]
    fn a_key_follows_what_counts_and_nothing_else() {
        let key = |texts: &[&str], run: &str| {
            let mut stage = stage();
            apply(&mut stage, texts);
            let Kind::Run(run) = of(run) else { panic!() };
            stage.run_key(&run)
        };
        assert_eq!(key(&["ENV A=1"], "RUN x"), key(&["env A=\"1\""], "run  x"));
        assert_ne!(key(&["ENV A=1"], "RUN x"), key(&["ENV A=2"], "RUN x"));
        assert_ne!(key(&[], "RUN x"), key(&["USER 1"], "RUN x"));
        assert_ne!(key(&["ARG W=1"], "RUN x"), key(&["ARG W=2"], "RUN x"));
        assert_ne!(key(&[], "RUN x"), key(&[], "RUN --network=none x"));
        assert_ne!(key(&[], "RUN x"), key(&[], "RUN [\"x\"]"));
    }

    #[test]
    fn copies_are_expanded_and_stay_inside() {
        let mut stage = stage();
        apply(&mut stage, &["WORKDIR /w", "ENV D=d"]);
        let expanded = |text: &str| {
            let Kind::Copy(copy) = of(text) else { panic!() };
            stage.expand_copy(&copy)
        };
        let found = expanded("COPY --chown=$D --chmod=4755 /a/../$D ./x/").unwrap();
        assert_eq!(found.sources, [Source::Path("d".into())]);
        assert_eq!((found.dest.as_str(), found.chmod), ("/w/x/", Some(0o4755)));
        assert_eq!(expanded("COPY a .").unwrap().dest, "/w/");
        assert_eq!(expanded("COPY a /").unwrap().dest, "/");
        let text = expanded("COPY <<E /x\n$D \"'$NO\\$D\nE").unwrap();
        let Source::Text(heredoc) = &text.sources[0] else {
            panic!()
        };
        assert_eq!(heredoc.text, "d \"'$D\n");
        for bad in ["COPY ../x /", "COPY a/../../x /", "COPY --chmod=u+x a /"] {
            assert!(expanded(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_are_put_together_with_their_heredocs() {
        let stage = stage();
        let command = |text: &str| {
            let Kind::Run(run) = of(text) else { panic!() };
            stage.command(&run).pop().unwrap()
        };
        assert_eq!(
            command("RUN cat <<A <<B\n1\nA\n2\nB"),
            "cat <<A <<B\n1\nA\n2\nB\n"
        );
        assert_eq!(command("RUN <<A\n1\n2\nA"), "1\n2\n");
        let script = command("RUN <<A\n#!/usr/bin/env sh\nGODWIT_SCRIPT\nA");
        assert!(script.contains("<<'GODWIT_SCRIPT_'") && script.contains("#!/usr/bin/env sh\n"));
        assert!(script.contains("exec '/usr/bin/env' 'sh' $f\n"), "{script}");
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for bad in [
            "EXPOSE 0",
            "EXPOSE 99999",
            "EXPOSE 9-1",
            "EXPOSE 80/x",
            "STOPSIGNAL SIGNO",
        ] {
            let instruction = changes("f", 1, &[bad.to_owned()]).unwrap().remove(0);
            assert!(stage().apply(&instruction, &arguments()).is_err(), "{bad}");
        }
    }
}
