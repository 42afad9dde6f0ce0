//! From logical lines to instructions. Everything that can be refused without knowing a value is
//! refused here, with its line.

use super::{
    error::{BuildFault, Refused},
    expand::split,
    instruction::{Command, Copy, Health, Heredoc, Instruction, Kind, Network, Run, Source},
    lines::{self, Line, lines},
};

/// What one Dockerfile may have.
const MAX_INSTRUCTIONS: usize = 10_000;
const SECOND: u64 = 1_000_000_000;

/// A Dockerfile that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// What it is called in messages.
    pub file: String,
    pub instructions: Vec<Instruction>,
    pub escape: char,
}

/// Reads a Dockerfile; `file` is its name in messages.
pub fn parse(file: &str, text: &str) -> Result<Dockerfile, BuildFault> {
    let (lines, escape) = lines(file, text)?;
    if lines.len() > MAX_INSTRUCTIONS {
        return Err(Refused::Long("10,000 instructions").at(file, 1));
    }
    let instructions: Vec<_> = lines
        .iter()
        .map(|line| instruction(line, escape).map_err(|fault| fault.at(file, line.number)))
        .collect::<Result<_, _>>()?;
    for instruction in &instructions {
        match &instruction.kind {
            Kind::From { .. } => break,
            Kind::Arg(_) => {}
            other => return Err(Refused::BeforeFrom(name(other)).at(file, instruction.line)),
        }
    }
    if !instructions
        .iter()
        .any(|i| matches!(i.kind, Kind::From { .. }))
    {
        return Err(Refused::NoFrom.at(file, 1));
    }
    Ok(Dockerfile {
        file: file.to_owned(),
        instructions,
        escape,
    })
}

/// Reads instructions without a `FROM`, one a text: what `ONBUILD` keeps and `commit -c` takes.
/// All count as line `line` of `file`.
pub fn changes(file: &str, line: u32, texts: &[String]) -> Result<Vec<Instruction>, BuildFault> {
    let mut found = Vec::new();
    for text in texts {
        for logical in lines(file, text)?.0 {
            let mut read = instruction(&logical, '\\').map_err(|fault| fault.at(file, line))?;
            if matches!(
                read.kind,
                Kind::From { .. } | Kind::Onbuild(_) | Kind::Maintainer(_)
            ) {
                let what = name(&read.kind);
                return Err(Refused::invalid(what, "it can't come here").at(file, line));
            }
            read.line = line;
            found.push(read);
        }
    }
    Ok(found)
}

pub(super) fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::From { .. } => "FROM",
        Kind::Arg(_) => "ARG",
        Kind::Env(_) => "ENV",
        Kind::Label(_) => "LABEL",
        Kind::Run(_) => "RUN",
        Kind::Copy(copy) if copy.add => "ADD",
        Kind::Copy(_) => "COPY",
        Kind::Cmd(_) => "CMD",
        Kind::Entrypoint(_) => "ENTRYPOINT",
        Kind::Shell(_) => "SHELL",
        Kind::Volume(_) => "VOLUME",
        Kind::Expose(_) => "EXPOSE",
        Kind::Workdir(_) => "WORKDIR",
        Kind::User(_) => "USER",
        Kind::StopSignal(_) => "STOPSIGNAL",
        Kind::Healthcheck(_) => "HEALTHCHECK",
        Kind::Onbuild(_) => "ONBUILD",
        Kind::Maintainer(_) => "MAINTAINER",
    }
}

fn instruction(line: &Line, escape: char) -> Result<Instruction, Refused> {
    if line.text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Refused::Control);
    }
    let (keyword, rest) = match line.text.split_once(char::is_whitespace) {
        Some((keyword, rest)) => (keyword, rest.trim()),
        None => (line.text.as_str(), ""),
    };
    let mut flags = Flags::default();
    let upper = keyword.to_ascii_uppercase();
    let rest = match upper.as_str() {
        "FROM" | "RUN" | "COPY" | "ADD" | "HEALTHCHECK" => flags.take(rest),
        _ => rest,
    };
    let kind = match upper.as_str() {
        "FROM" => from(rest, &mut flags)?,
        "ARG" => Kind::Arg(arguments(rest, escape)?),
        "ENV" => Kind::Env(pairs("ENV", rest, escape)?),
        "LABEL" => Kind::Label(pairs("LABEL", rest, escape)?),
        "RUN" => run(rest, &line.heredocs, &mut flags)?,
        "COPY" => Kind::Copy(copy("COPY", rest, &line.heredocs, &mut flags)?),
        "ADD" => Kind::Copy(copy("ADD", rest, &line.heredocs, &mut flags)?),
        "CMD" => Kind::Cmd(command(rest)),
        "ENTRYPOINT" => Kind::Entrypoint(command(needed("ENTRYPOINT", rest)?)),
        "SHELL" => match json(rest) {
            Some(words) if !words.is_empty() => Kind::Shell(words),
            _ => return Err(Refused::Arguments("SHELL", "a JSON array of words")),
        },
        "VOLUME" => Kind::Volume(list("VOLUME", rest)?),
        "EXPOSE" => Kind::Expose(split(needed("EXPOSE", rest)?, escape)),
        "WORKDIR" => Kind::Workdir(needed("WORKDIR", rest)?.to_owned()),
        "USER" => Kind::User(needed("USER", rest)?.to_owned()),
        "STOPSIGNAL" => Kind::StopSignal(needed("STOPSIGNAL", rest)?.to_owned()),
        "HEALTHCHECK" => Kind::Healthcheck(health(rest, &mut flags)?),
        "ONBUILD" => onbuild(rest, &line.heredocs, escape)?,
        "MAINTAINER" => Kind::Maintainer(needed("MAINTAINER", rest)?.to_owned()),
        _ => return Err(Refused::Unknown(keyword.chars().take(40).collect())),
    };
    flags.none_left(name(&kind))?;
    Ok(Instruction {
        line: line.number,
        text: format!("{upper} {}", line.text[keyword.len()..].trim())
            .trim_end()
            .to_owned(),
        kind,
    })
}

fn needed<'a>(what: &'static str, rest: &'a str) -> Result<&'a str, Refused> {
    if rest.is_empty() {
        return Err(Refused::Arguments(what, "an argument"));
    }
    Ok(rest)
}

/// `--name` and `--name=value`, before everything else.
#[derive(Default)]
struct Flags(Vec<(String, Option<String>)>);

impl Flags {
    fn take<'a>(&mut self, mut rest: &'a str) -> &'a str {
        while rest.starts_with("--") {
            let (flag, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            rest = after.trim_start();
            if flag == "--" {
                break;
            }
            let flag = &flag[2..];
            self.0.push(match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (flag.to_owned(), None),
            });
        }
        rest
    }

    /// The value of a flag; one that is given twice counts once, the last.
    fn value(&mut self, name: &str) -> Result<Option<String>, Refused> {
        let mut found = None;
        for (_, value) in self.0.extract_if(.., |(flag, _)| flag == name) {
            let missing = || Refused::invalid(&format!("--{name}"), "it needs a value");
            found = Some(value.ok_or_else(missing)?);
        }
        Ok(found)
    }

    /// A flag that changes nothing here.
    fn ignored(&mut self, name: &str) {
        self.0.retain(|(flag, _)| flag != name);
    }

    fn unsupported(&self, name: &str, instead: &'static str) -> Result<(), Refused> {
        if self.0.iter().any(|(flag, _)| flag == name) {
            let flag = format!("--{name}");
            return Err(Refused::Unsupported { flag, instead });
        }
        Ok(())
    }

    fn none_left(self, instruction: &'static str) -> Result<(), Refused> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((flag, _)) => Err(Refused::Flag {
                instruction,
                flag: format!("--{}", flag.chars().take(40).collect::<String>()),
            }),
        }
    }
}

fn from(rest: &str, flags: &mut Flags) -> Result<Kind, Refused> {
    let platform = flags.value("platform")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (base, name) = match words[..] {
        [base] => (base, None),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (base, Some(name)),
        _ => return Err(Refused::Arguments("FROM", "`IMAGE`, or `IMAGE AS NAME`")),
    };
    if let Some(name) = name {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(fits) {
            let problem = "a stage's name is a letter, then letters, digits, `_`, `-` or `.`";
            return Err(Refused::invalid(name, problem));
        }
    }
    Ok(Kind::From {
        platform,
        base: base.to_owned(),
        name: name.map(str::to_ascii_lowercase),
    })
}

fn arguments(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>, Refused> {
    split(needed("ARG", rest)?, escape)
        .into_iter()
        .map(|word| {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            if name.is_empty() {
                return Err(Refused::invalid(&word, "there is no name before the `=`"));
            }
            Ok((name.to_owned(), value))
        })
        .collect()
}

/// `KEY=value …`, or the older `KEY the rest`.
fn pairs(what: &'static str, rest: &str, escape: char) -> Result<Vec<(String, String)>, Refused> {
    let words = split(needed(what, rest)?, escape);
    let first = words.first().map(String::as_str).unwrap_or_default();
    if !first.contains('=') {
        let Some((name, value)) = rest.split_once(char::is_whitespace) else {
            return Err(Refused::Arguments(what, "a name and a value"));
        };
        return Ok(vec![(name.to_owned(), value.trim_start().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            Some(_) => Err(Refused::invalid(&word, "there is no name before the `=`")),
            None => Err(Refused::invalid(&word, "it has no `=`")),
        })
        .collect()
}

/// The JSON form, if it is one.
fn json(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[')
        .then(|| serde_json::from_str(rest).ok())
        .flatten()
}

fn command(rest: &str) -> Command {
    match json(rest) {
        Some(words) => Command::Exec(words),
        None => Command::Shell(rest.to_owned()),
    }
}

fn list(what: &'static str, rest: &str) -> Result<Vec<String>, Refused> {
    let words = json(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
    if words.is_empty() || words.iter().any(String::is_empty) {
        return Err(Refused::Arguments(what, "an argument"));
    }
    Ok(words)
}

fn run(rest: &str, heredocs: &[Heredoc], flags: &mut Flags) -> Result<Kind, Refused> {
    flags.unsupported("mount", "copy what a step needs with `COPY`")?;
    let security = flags.value("security")?;
    if security.is_some_and(|security| security != "sandbox") {
        let instead = "a step has what a container has, no more";
        let flag = "--security".to_owned();
        return Err(Refused::Unsupported { flag, instead });
    }
    let network = match flags.value("network")?.as_deref() {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some(other) => {
            return Err(Refused::invalid(
                other,
                "a step's network is `default` or `none`",
            ));
        }
    };
    let command = command(needed("RUN", rest)?);
    if matches!(&command, Command::Exec(words) if words.is_empty()) {
        return Err(Refused::Arguments("RUN", "a command"));
    }
    let script = heredocs.len() == 1 && lines::start(rest).is_some();
    Ok(Kind::Run(Run {
        command,
        heredocs: heredocs.to_vec(),
        script,
        network,
    }))
}

fn copy(
    what: &'static str,
    rest: &str,
    heredocs: &[Heredoc],
    flags: &mut Flags,
) -> Result<Copy, Refused> {
    let add = what == "ADD";
    let from = if add { None } else { flags.value("from")? };
    flags.unsupported("parents", "name the directories in the destination")?;
    flags.unsupported("exclude", "leave it out in `.dockerignore`")?;
    if add {
        flags.unsupported("checksum", "nothing is fetched from elsewhere")?;
        flags.unsupported("keep-git-dir", "nothing is fetched from elsewhere")?;
        flags.unsupported(
            "unpack",
            "`COPY` copies an archive as it is, `ADD` unpacks it",
        )?;
    }
    // What is made is the same with and without it.
    flags.ignored("link");
    let (chown, chmod) = (flags.value("chown")?, flags.value("chmod")?);
    let mut words =
        json(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
    let dest = words.pop().unwrap_or_default();
    if words.is_empty() || dest.is_empty() {
        return Err(Refused::Arguments(
            what,
            "at least one source, and a destination",
        ));
    }
    let mut texts = heredocs.iter();
    let mut sources = Vec::new();
    for word in words {
        if lines::start(&word).is_some()
            && let Some(text) = texts.next()
        {
            sources.push(Source::Text(text.clone()));
            continue;
        }
        let lower = word.to_ascii_lowercase();
        let remote = ["http://", "https://", "git://", "ssh://", "git@"];
        if remote.iter().any(|scheme| lower.starts_with(scheme)) {
            let problem = "nothing is fetched from elsewhere: download it into the context, or \
                           fetch it in a `RUN` that checks its digest";
            return Err(Refused::invalid(&word, problem));
        }
        sources.push(Source::Path(word));
    }
    Ok(Copy {
        add,
        from,
        chown,
        chmod,
        sources,
        dest,
    })
}

fn health(rest: &str, flags: &mut Flags) -> Result<Health, Refused> {
    let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match word.to_ascii_uppercase().as_str() {
        "NONE" if after.trim().is_empty() => Ok(Health::None),
        "CMD" => {
            let command = command(needed("HEALTHCHECK CMD", after.trim())?);
            let mut time = |name: &str| match flags.value(name)? {
                None => Ok(0),
                Some(text) => duration(&text)
                    .filter(|time| *time == 0 || *time >= SECOND / 1000)
                    .ok_or_else(|| Refused::invalid(&text, "a time is such as `30s` or `1m30s`")),
            };
            let (interval, timeout) = (time("interval")?, time("timeout")?);
            let (start_period, start_interval) = (time("start-period")?, time("start-interval")?);
            let retries = match flags.value("retries")? {
                None => 0,
                Some(text) => text
                    .parse::<u32>()
                    .map_err(|_| Refused::invalid(&text, "retries are a number"))?
                    .into(),
            };
            Ok(Health::Check {
                command,
                interval,
                timeout,
                start_period,
                start_interval,
                retries,
            })
        }
        _ => Err(Refused::Arguments(
            "HEALTHCHECK",
            "`NONE`, or `CMD` and a command",
        )),
    }
}

/// Go's durations: `1h2m3.5s`. In nanoseconds.
fn duration(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let unit = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        total += number
            * match &after[..unit] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &after[unit..];
    }
    (!text.is_empty() && total < 9e18).then_some(total as u64)
}

fn onbuild(rest: &str, heredocs: &[Heredoc], escape: char) -> Result<Kind, Refused> {
    let mut text = needed("ONBUILD", rest)?.to_owned();
    let inner = Line {
        number: 0,
        text: text.clone(),
        heredocs: heredocs.to_vec(),
    };
    // What it holds has to be an instruction already now.
    let read = instruction(&inner, escape)?;
    if matches!(
        read.kind,
        Kind::From { .. } | Kind::Onbuild(_) | Kind::Maintainer(_)
    ) {
        let what = name(&read.kind);
        return Err(Refused::invalid(what, "it can't be a trigger"));
    }
    for heredoc in heredocs {
        text.push_str(&format!("\n{}{}", heredoc.text, heredoc.name));
    }
    Ok(Kind::Onbuild(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Kind {
        let parsed = parse("Dockerfile", &format!("FROM x\n{text}")).unwrap();
        parsed.instructions[1].kind.clone()
    }

    fn refusal(text: &str) -> String {
        parse("Dockerfile", text).unwrap_err().to_string()
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn commands_have_a_shell_and_an_exec_form() {
        assert_eq!(one("CMD a b"), Kind::Cmd(Command::Shell("a b".into())));
        let exec = Command::Exec(words(&["a", "b c"]));
        assert_eq!(one(r#"entrypoint ["a", "b c"]"#), Kind::Entrypoint(exec));
        // Not JSON, so a line for the shell.
        assert_eq!(
            one("CMD [ -e x ]"),
            Kind::Cmd(Command::Shell("[ -e x ]".into()))
        );
        assert_eq!(
            one(r#"SHELL ["/bin/ash","-c"]"#),
            Kind::Shell(words(&["/bin/ash", "-c"]))
        );
    }

    #[test]
    fn names_and_values_come_in_both_forms() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let both = vec![pair("A", "1"), pair("B", "\"x y\"")];
        assert_eq!(one("ENV A=1 B=\"x y\""), Kind::Env(both));
        assert_eq!(
            one("ENV A the rest"),
            Kind::Env(vec![pair("A", "the rest")])
        );
        assert_eq!(
            one("ARG A B=c"),
            Kind::Arg(vec![("A".into(), None), ("B".into(), Some("c".into()))])
        );
    }

    #[test]
    fn copies_have_flags_sources_and_heredocs() {
        let Kind::Copy(copy) = one("COPY --from=a --chown=1:2 --chmod=755 --link x y /z/") else {
            panic!()
        };
        assert_eq!(
            (copy.from.as_deref(), copy.chown.as_deref()),
            (Some("a"), Some("1:2"))
        );
        assert_eq!(
            (copy.chmod.as_deref(), copy.dest.as_str()),
            (Some("755"), "/z/")
        );
        assert_eq!(copy.sources.len(), 2);
        let Kind::Copy(copy) = one("ADD [\"a b\", \"c d\"]") else {
            panic!()
        };
        assert!(copy.add && copy.sources == [Source::Path("a b".into())] && copy.dest == "c d");
        let Kind::Copy(copy) = one("COPY <<one <<'two' /d/\nx\none\ny\ntwo") else {
            panic!()
        };
        assert!(
            matches!(&copy.sources[1], Source::Text(text) if text.text == "y\n" && !text.expand)
        );
    }

    #[test]
    fn a_run_of_one_heredoc_is_a_script() {
        let Kind::Run(run) = one("RUN <<EOF\na\nEOF") else {
            panic!()
        };
        assert!(run.script && run.heredocs[0].text == "a\n");
        let Kind::Run(run) = one("RUN cat <<EOF > f\na\nEOF") else {
            panic!()
        };
        assert!(!run.script && run.heredocs.len() == 1);
    }

    #[test]
    fn health_checks_have_times() {
        let Kind::Healthcheck(Health::Check {
            interval,
            timeout,
            retries,
            ..
        }) = one("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD x")
        else {
            panic!()
        };
        assert_eq!((interval, timeout, retries), (90 * SECOND, SECOND / 2, 3));
        assert_eq!(one("HEALTHCHECK none"), Kind::Healthcheck(Health::None));
    }

    #[test]
    fn a_fault_names_its_line() {
        for (text, wanted) in [
            (
                "FROM x\n\nRUNN y",
                "Dockerfile:3: unknown instruction `RUNN`",
            ),
            (
                "RUN y\nFROM x",
                "Dockerfile:1: `RUN` comes before the first `FROM`",
            ),
            ("ARG x", "Dockerfile:1: there is no `FROM`"),
            ("", "Dockerfile:1: there is no `FROM`"),
            ("FROM x as", "Dockerfile:1: `FROM` needs"),
            ("FROM x AS 1a", "Dockerfile:1: `1a` is not valid"),
            ("FROM x\nCOPY a", "Dockerfile:2: `COPY` needs"),
            (
                "FROM x\nCOPY --frum=a b c",
                "Dockerfile:2: `COPY` has no flag `--frum`",
            ),
            (
                "FROM x\nRUN --mount=type=cache x",
                "Dockerfile:2: flag `--mount` is not supported",
            ),
            (
                "FROM x\nRUN \\\n  --network=x y",
                "Dockerfile:2: `x` is not valid",
            ),
            (
                "FROM x\nADD https://a/b /c",
                "Dockerfile:2: `https://a/b` is not valid",
            ),
            ("FROM x\nENV A=1 B", "Dockerfile:2: `B` is not valid"),
            ("FROM x\nENV A", "Dockerfile:2: `ENV` needs"),
            (
                "FROM x\nSHELL a",
                "Dockerfile:2: `SHELL` needs a JSON array",
            ),
            ("FROM x\nHEALTHCHECK x", "Dockerfile:2: `HEALTHCHECK` needs"),
            (
                "FROM x\nONBUILD FROM y",
                "Dockerfile:2: `FROM` is not valid",
            ),
            (
                "FROM x\nONBUILD NOPE",
                "Dockerfile:2: unknown instruction `NOPE`",
            ),
            (
                "FROM x\nUSER a\x07b",
                "Dockerfile:2: it has a control character",
            ),
        ] {
            let found = refusal(text);
            assert!(found.starts_with(wanted), "{text:?}: {found}");
        }
    }

    #[test]
    fn flags_that_are_not_known_here_say_what_to_do() {
        for (text, words) in [
            ("COPY --parents a b", "name the directories"),
            ("COPY --exclude=x a b", ".dockerignore"),
            ("ADD --checksum=x a b", "nothing is fetched"),
            ("RUN --security=insecure x", "what a container has"),
        ] {
            let found = refusal(&format!("FROM x\n{text}"));
            assert!(
                found.starts_with("Dockerfile:2:") && found.contains(words),
                "{found}"
            );
        }
    }

    #[test]
    fn a_trigger_with_a_heredoc_reads_back() {
        let Kind::Onbuild(text) = one("ONBUILD COPY <<a /f\nx\na") else {
            panic!()
        };
        let read = changes("Dockerfile", 1, &[text]).unwrap();
        assert!(matches!(&read[0].kind, Kind::Copy(copy) if copy.dest == "/f"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(FROM|RUN|COPY|ENV|<<E|E|\\\\|\n|#|escape=|`| |\\[|\"|,|\\]|--from=|=|a|\\$\\{|\t){0,60}") {
            let _ = parse("f", &text);
        }

        #[test]
        fn any_characters_are_read_or_refused(text in "\\PC{0,200}") {
            let _ = parse("f", &text);
            let _ = parse("f", &format!("FROM x\n{text}"));
        }
    }
}
