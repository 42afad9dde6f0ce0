//! `godwit image load`.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use anyhow::{Context, bail};
use godwit_cli::archive::{HostLoad, load};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{fs::File, io::AsyncRead};

use crate::{
    options::{Format, Global},
    output,
};

/// Load an image archive onto hosts
///
/// The archive is a docker-archive (`docker save`, `podman save`) or an OCI layout as a tar file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The archive; `-` is standard input
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    input: String,
    /// Load it onto this host only; repeat for several [default: every host that is up]
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let (archive, size) = open(&args.input).await?;
    let mut cluster = global.cluster()?;
    let bar = bar(size);
    let loaded = load(&mut cluster, archive, args.hosts, |sent| {
        bar.set_position(sent)
    })
    .await;
    bar.finish_and_clear();
    let hosts = loaded.with_context(|| format!("`{}` was not loaded", args.input))?;
    match global.format {
        Format::Json => output::json(&hosts)?,
        Format::Table => {
            for line in summary(&hosts) {
                output::line(line)?;
            }
        }
    }
    let mut code = 0;
    for host in &hosts {
        if let Some(error) = &host.error {
            output::note(complaint(&args.input, &host.host, error));
            code = 1;
        }
    }
    if code != 0 {
        output::note(
            "hint: nothing of it was kept there; `docker save` and `podman save` write archives \
             that can be loaded",
        );
    }
    Ok(code)
}

type Archive = Box<dyn AsyncRead + Unpin>;

async fn open(input: &str) -> anyhow::Result<(Archive, Option<u64>)> {
    if input == "-" {
        if io::stdin().is_terminal() {
            bail!(
                "standard input is a terminal: give an archive, as in `godwit image load -i - < FILE`"
            );
        }
        return Ok((Box::new(tokio::io::stdin()), None));
    }
    let file = File::open(input)
        .await
        .with_context(|| format!("can't open `{input}`"))?;
    let metadata = file
        .metadata()
        .await
        .with_context(|| format!("can't read `{input}`"))?;
    if metadata.is_dir() {
        bail!("`{input}` is a directory: give the archive as one tar file");
    }
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

fn bar(size: Option<u64>) -> ProgressBar {
    // indicatif draws nothing when standard error is no terminal.
    let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
    let template = match size {
        Some(_) => "loading [{bar:30}] {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}",
        None => "loading {binary_bytes}  {binary_bytes_per_sec}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// What a host says names it already; what is said about one does not.
fn complaint(input: &str, host: &str, error: &str) -> String {
    let error = output::failure::shown(error);
    let named = format!("host `{host}`: ");
    let error = error.strip_prefix(&named).unwrap_or(&error);
    format!("error: `{}`: {named}{error}", output::failure::shown(input))
}

/// A line per image, with the hosts that have it now.
fn summary(hosts: &[HostLoad]) -> Vec<String> {
    let mut images: Vec<(String, Vec<&str>)> = Vec::new();
    for host in hosts {
        for image in &host.images {
            let names: Vec<_> = image.names.iter().map(ToString::to_string).collect();
            // An archive may hold an image without a name.
            let names = if names.is_empty() {
                vec![image.id.to_string()]
            } else {
                names
            };
            for name in names {
                match images.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, on)) => on.push(&host.host),
                    None => images.push((name, vec![&host.host])),
                }
            }
        }
    }
    images
        .into_iter()
        .map(|(name, on)| format!("Loaded image: {name} ({})", on.join(", ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use godwit_types::{ByteSize, Digest, ImageSummary};

    use super::*;

    #[test]
    fn a_complaint_names_the_archive_and_the_host_once() {
        for error in ["it is truncated", "host `h1`: it is truncated"] {
            assert_eq!(
                complaint("redis.tar", "h1", error),
                "error: `redis.tar`: host `h1`: it is truncated"
            );
        }
    }

    #[test]
    fn an_image_is_named_once_with_its_hosts() {
        let host = |name: &str, error: Option<&str>| HostLoad {
            host: name.into(),
            error: error.map(str::to_owned),
            images: match error {
                Some(_) => Vec::new(),
                None => vec![ImageSummary {
                    id: Digest::from_sha256([1; 32]),
                    names: vec!["redis:7".parse().unwrap()],
                    size: ByteSize(1),
                    created: 0,
                    volumes: Vec::new(),
                    exposed: Vec::new(),
                }],
            },
        };
        let hosts = [
            host("h1", None),
            host("h2", Some("no room")),
            host("h3", None),
        ];
        assert_eq!(summary(&hosts), ["Loaded image: redis:7 (h1, h3)"]);
    }
}
