//! What is mounted.

use anyhow::{Context, bail};
use godwit_types::{
    ByteSize, Mount, MountSource, StorageOptions, VolumeMount, VolumeName, VolumesFrom, plain_path,
};

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Flags {
    /// Mount a volume or a path of the host: NAME:PATH[:ro], /HOST/PATH:PATH[:ro], or PATH alone
    /// for a volume without a name
    #[arg(short, long, value_name = "[SOURCE:]PATH[:OPTIONS]")]
    volume: Vec<String>,
    /// Mount, as in type=volume,source=NAME,target=PATH; also type=bind and type=tmpfs
    #[arg(long, value_name = "KEY=VALUE,…")]
    mount: Vec<String>,
    /// Mount what another container mounts
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
}

impl Flags {
    pub fn options(self) -> anyhow::Result<StorageOptions> {
        let short = self.volume.iter().map(|text| {
            of_short(text).with_context(|| format!("`--volume {text}` is not understood"))
        });
        let long = self.mount.iter().map(|text| {
            of_long(text).with_context(|| format!("`--mount {text}` is not understood"))
        });
        let from = self.volumes_from.iter().map(|text| {
            of_container(text).with_context(|| format!("`--volumes-from {text}` is not understood"))
        });
        Ok(StorageOptions {
            mounts: short.chain(long).collect::<anyhow::Result<_>>()?,
            volumes_from: from.collect::<anyhow::Result<_>>()?,
        })
    }
}

/// `[SOURCE:]PATH[:OPTIONS]`
fn of_short(text: &str) -> anyhow::Result<Mount> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match parts[..] {
        [destination] => (None, destination, ""),
        [source, destination] if destination.starts_with('/') => (Some(source), destination, ""),
        [destination, options] if destination.starts_with('/') => (None, destination, options),
        [source, destination, options] => (Some(source), destination, options),
        _ => bail!("it is `[SOURCE:]PATH[:OPTIONS]`"),
    };
    let (mut read_only, mut no_copy) = (false, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "nocopy" => no_copy = true,
            other => bail!("option `{other}` is none of `ro`, `rw` and `nocopy`"),
        }
    }
    let source = match source {
        None => MountSource::Anonymous { no_copy },
        Some(path) if path.starts_with('/') => MountSource::Bind {
            path: plain_path(path),
        },
        Some(name) => volume(name, no_copy)?,
    };
    mount(destination, source, read_only)
}

fn volume(name: &str, no_copy: bool) -> anyhow::Result<MountSource> {
    let name = VolumeName::new(name)
        .context("a source is the name of a volume, or an absolute path of the host")?;
    Ok(MountSource::Volume(VolumeMount {
        name,
        id: None,
        anonymous: false,
        no_copy,
    }))
}

fn mount(destination: &str, source: MountSource, read_only: bool) -> anyhow::Result<Mount> {
    if !destination.starts_with('/') {
        bail!("`{destination}` is no absolute path in the container");
    }
    Ok(Mount {
        destination: plain_path(destination),
        source,
        read_only,
    })
}

/// `KEY=VALUE,…`
fn of_long(text: &str) -> anyhow::Result<Mount> {
    let (mut kind, mut source, mut target) = ("volume", None, None);
    let (mut read_only, mut no_copy) = (false, false);
    let (mut size, mut mode) = (None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, "true"));
        match key {
            "type" => kind = value,
            "source" | "src" => source = Some(value),
            "target" | "destination" | "dst" => target = Some(value),
            "readonly" | "ro" => read_only = flag(key, value)?,
            "volume-nocopy" => no_copy = flag(key, value)?,
            "tmpfs-size" => {
                let parsed: ByteSize = value.parse().context("`tmpfs-size` is a size")?;
                size = Some(parsed.0);
            }
            "tmpfs-mode" => {
                let parsed = u32::from_str_radix(value, 8);
                mode = Some(parsed.context("`tmpfs-mode` is an octal number")?);
            }
            other => bail!("`{other}` is not supported"),
        }
    }
    let target = target.context("`target` is missing")?;
    if kind != "tmpfs" && (size.is_some() || mode.is_some()) {
        bail!("`tmpfs-size` and `tmpfs-mode` are for `type=tmpfs`");
    }
    if kind != "volume" && no_copy {
        bail!("`volume-nocopy` is for `type=volume`");
    }
    let source = match (kind, source) {
        ("volume", None) => MountSource::Anonymous { no_copy },
        ("volume", Some(name)) => volume(name, no_copy)?,
        ("bind", Some(path)) if path.starts_with('/') => MountSource::Bind {
            path: plain_path(path),
        },
        ("bind", _) => bail!("`source` of a bind is an absolute path of the host"),
        ("tmpfs", None) => MountSource::Tmpfs { size, mode },
        ("tmpfs", Some(_)) => bail!("a tmpfs has no `source`"),
        (other, _) => bail!("type `{other}` is none of `volume`, `bind` and `tmpfs`"),
    };
    mount(target, source, read_only)
}

fn flag(key: &str, value: &str) -> anyhow::Result<bool> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => bail!("`{key}` is `true` or `false`, not `{other}`"),
    }
}

/// `CONTAINER[:ro]`
fn of_container(text: &str) -> anyhow::Result<VolumesFrom> {
    let (container, read_only) = match text.split_once(':') {
        None => (text, false),
        Some((container, "rw")) => (container, false),
        Some((container, "ro")) => (container, true),
        Some((_, other)) => bail!("option `{other}` is neither `ro` nor `rw`"),
    };
    Ok(VolumesFrom {
        container: container.to_owned(),
        read_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_is_read_as_docker_reads_it() {
        let read = |text: &str| of_short(text).unwrap();
        assert_eq!(
            read("/data").source,
            MountSource::Anonymous { no_copy: false }
        );
        let named = read("db:/var//lib/:ro");
        assert_eq!(named.destination, "/var/lib");
        assert!(named.read_only);
        assert!(
            matches!(named.source, MountSource::Volume(volume) if volume.name.as_str() == "db")
        );
        let bind = read("/srv/x:/x");
        assert_eq!(
            bind.source,
            MountSource::Bind {
                path: "/srv/x".into()
            }
        );
        for bad in ["./x:/x", "db:x", "db:/x:rox", "a:/b:ro:c", "", "-x:/x"] {
            assert!(of_short(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_long_form_is_read_as_docker_reads_it() {
        let read = |text: &str| of_long(text).unwrap();
        let bind = read("type=bind,src=/srv,dst=/x,readonly");
        assert!(bind.read_only && bind.destination == "/x");
        assert_eq!(
            read("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770").source,
            MountSource::Tmpfs {
                size: Some(64 << 20),
                mode: Some(0o1770)
            }
        );
        assert!(matches!(
            read("source=db,target=/x,volume-nocopy").source,
            MountSource::Volume(VolumeMount { no_copy: true, .. })
        ));
        for bad in [
            "type=bind,target=/x",
            "type=nfs,target=/x",
            "source=db",
            "type=tmpfs,source=a,target=/x",
            "type=bind,source=/a,target=/x,bind-propagation=shared",
        ] {
            assert!(of_long(bad).is_err(), "{bad}");
        }
    }
}
