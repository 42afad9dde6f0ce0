//! `godwit build`.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use godwit_cli::{
    author::{self, Produce},
    context,
    env::resolve,
    exit_code::INTERRUPTED,
};
use godwit_types::{BuildRequest, ByteSize, Cpus, IgnoreRules, ImageName, Limits};

use crate::{
    options::{Format, Global},
    output::{self, build::Printer},
};

const MAX_DOCKERFILE: u64 = 4 << 20;

/// Build an image from a Dockerfile
///
/// It is built on one host, with the files of a directory here; its steps run in containers there.
/// Ctrl-C ends it and leaves nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to call it, as NAME[:TAG]; repeat for several names
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<ImageName>,
    /// The Dockerfile; `-` is standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Set an argument of the Dockerfile; KEY alone takes its value from here
    #[arg(long, value_name = "KEY[=VALUE]")]
    build_arg: Vec<String>,
    /// Set a label of the image
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Build this stage and what it needs [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Do every step, whatever is known of it
    #[arg(long)]
    no_cache: bool,
    /// The host to build it on [default: the cluster chooses]
    #[arg(long)]
    host: Option<String>,
    /// The network of its steps; `none` is loopback only
    #[arg(long, value_name = "NETWORK", default_value = "default", value_parser = ["default", "none"])]
    network: String,
    /// Most memory of a step, as in 512m
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Most processor time of a step, in processors, as in 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,
    /// Most processes and threads of a step
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<u32>,
    /// Print the image's id and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// The directory; `-` is standard input: a tar of one, or a Dockerfile alone
    context: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let (host, quiet) = (args.host.clone(), args.quiet);
    let (request, context) = prepare(args)?;
    let mut cluster = global.cluster()?;
    let mut printer = Printer::new(global.format, quiet);
    let build = author::build(&mut cluster, &request, host, context, |event| {
        printer.print(event)
    });
    let built = tokio::select! {
        _ = tokio::signal::ctrl_c() => {
            output::note("build cancelled: nothing of it is kept");
            return Ok(INTERRUPTED);
        }
        built = build => built?,
    };
    let image = built.context("image not built")?;
    if global.format == Format::Table {
        output::line(&image.id)?;
    }
    Ok(0)
}

fn prepare(args: Args) -> anyhow::Result<(BuildRequest, Produce)> {
    let mut request = BuildRequest {
        names: args.tags,
        arguments: pairs(&resolve(&args.build_arg, |key| env::var_os(key))?),
        labels: pairs(&args.label),
        target: args.target,
        no_cache: args.no_cache,
        no_network: args.network == "none",
        limits: Limits {
            memory: args.memory,
            cpus: args.cpus,
            pids: args.pids_limit,
            ..Limits::default()
        },
        ..BuildRequest::default()
    };
    if args.context == "-" {
        let context = standard_input(&mut request, args.file)?;
        return Ok((request, context));
    }
    if args.context.contains("://") || args.context.starts_with("git@") {
        bail!(
            "`{}` is no directory: fetch it first, and name the directory",
            args.context
        );
    }
    let dir = PathBuf::from(&args.context);
    let found = fs::metadata(&dir).with_context(|| format!("no context `{}`", args.context))?;
    if !found.is_dir() {
        bail!(
            "`{}` is no directory: a context is one, or `-`",
            args.context
        );
    }
    let (name, text, path) = dockerfile(&dir, args.file)?;
    let rules = rules(&dir, path.as_deref())?;
    request.file = name;
    request.text = Some(text);
    let context: Produce = Box::new(move |out| context::write(&dir, &rules, out));
    Ok((request, context))
}

fn pairs(entries: &[String]) -> BTreeMap<String, String> {
    let pair = |entry: &String| match entry.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (entry.clone(), String::new()),
    };
    entries.iter().map(pair).collect()
}

/// Its name in messages, its text, and where it lies.
fn dockerfile(
    dir: &Path,
    file: Option<String>,
) -> anyhow::Result<(String, String, Option<PathBuf>)> {
    if file.as_deref() == Some("-") {
        let text = text(io::stdin().lock(), "standard input")?;
        return Ok(("Dockerfile".to_owned(), text, None));
    }
    let path = match &file {
        Some(file) => PathBuf::from(file),
        None => dir.join("Dockerfile"),
    };
    let opened = fs::File::open(&path);
    let opened = opened.with_context(|| format!("no Dockerfile `{}`", path.display()))?;
    let text = text(opened, &path.display().to_string())?;
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok((name, text, Some(path)))
}

fn text(from: impl Read, name: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    from.take(MAX_DOCKERFILE)
        .read_to_string(&mut text)
        .with_context(|| format!("`{name}` can't be read as a Dockerfile"))?;
    Ok(text)
}

/// `NAME.dockerignore` beside the Dockerfile, or the context's `.dockerignore`.
fn rules(dir: &Path, dockerfile: Option<&Path>) -> anyhow::Result<IgnoreRules> {
    let beside = dockerfile.map(|path| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".dockerignore");
        path.with_file_name(name)
    });
    for path in beside.into_iter().chain([dir.join(".dockerignore")]) {
        match fs::read_to_string(&path) {
            Ok(text) => {
                return IgnoreRules::parse(&text)
                    .with_context(|| format!("`{}` can't be used", path.display()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let text = format!("can't read `{}`", path.display());
                return Err(anyhow::Error::new(error).context(text));
            }
        }
    }
    Ok(IgnoreRules::default())
}

/// A tar of a context, or a Dockerfile that needs none.
fn standard_input(request: &mut BuildRequest, file: Option<String>) -> anyhow::Result<Produce> {
    if io::stdin().is_terminal() {
        bail!(
            "standard input is a terminal: give a tar or a Dockerfile, as in `godwit build - < FILE`"
        );
    }
    let mut start = Vec::new();
    io::stdin()
        .lock()
        .take(512)
        .read_to_end(&mut start)
        .context("can't read standard input")?;
    if context::is_archive(&start) {
        request.file = file.unwrap_or_else(|| "Dockerfile".to_owned());
        return Ok(Box::new(move |out: &mut dyn Write| {
            out.write_all(&start)?;
            io::copy(&mut io::stdin().lock(), out).map(drop)
        }));
    }
    if let Some(file) = file.filter(|file| file != "-") {
        bail!("standard input is a Dockerfile, and `--file {file}` names another");
    }
    let rest = start.as_slice().chain(io::stdin().lock());
    request.text = Some(text(rest, "standard input")?);
    // A context without anything: the end marker of a tar.
    Ok(Box::new(|out: &mut dyn Write| out.write_all(&[0; 1024])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_beside_the_dockerfile_come_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.Dockerfile");
        fs::write(dir.path().join(".dockerignore"), "a").unwrap();
        assert!(rules(dir.path(), Some(&file)).unwrap().ignores("a"));
        fs::write(dir.path().join("x.Dockerfile.dockerignore"), "b").unwrap();
        let found = rules(dir.path(), Some(&file)).unwrap();
        assert!(found.ignores("b") && !found.ignores("a"));
        fs::write(dir.path().join("x.Dockerfile.dockerignore"), "!").unwrap();
        assert!(rules(dir.path(), Some(&file)).is_err());
    }
}
