//! The programs under test: beside this one, of the same build.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// Paths of everything a cluster needs.
#[derive(Debug, Clone)]
pub struct Programs {
    pub godwit: PathBuf,
    pub agent: PathBuf,
    pub controller: PathBuf,
    pub shim: PathBuf,
    pub testbed: PathBuf,
    pub workload: PathBuf,
    pub interpose: PathBuf,
    pub criu: PathBuf,
    /// `busybox.tar`, `redis.tar`
    pub images: PathBuf,
}

impl Programs {
    pub fn find() -> Result<Self> {
        let me = env::current_exe().context("own path")?;
        // Tests are one folder deeper than programs.
        let dir = me
            .ancestors()
            .skip(1)
            .find(|dir| dir.join("godwit-testbed").is_file())
            .with_context(|| format!("no `godwit-testbed` above `{}`", me.display()))?;
        let root = workspace()?;
        let setup = std::fs::read_to_string(root.join("target/setup/env"))
            .context("`target/setup/env`: run `deploy/setup.sh` first")?;
        let set = |key: &str| {
            setup
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(PathBuf::from)
                .with_context(|| format!("`target/setup/env` has no {key}"))
        };
        let programs = Self {
            godwit: dir.join("godwit"),
            agent: dir.join("godwit-agent"),
            controller: dir.join("godwit-controller"),
            shim: dir.join("godwit-shim"),
            testbed: dir.join("godwit-testbed"),
            workload: dir.join("godwit-workload"),
            interpose: dir.join("libgodwit_interpose.so"),
            criu: set("GODWIT_CRIU")?,
            images: set("GODWIT_IMAGES")?,
        };
        for path in [
            &programs.godwit,
            &programs.agent,
            &programs.controller,
            &programs.shim,
            &programs.workload,
            &programs.interpose,
            &programs.criu,
        ] {
            ensure!(
                path.exists(),
                "`{}` is missing: build the whole workspace (`cargo xtask test` does)",
                path.display()
            );
        }
        Ok(programs)
    }

    pub fn image(&self, name: &str) -> PathBuf {
        self.images.join(format!("{name}.tar"))
    }
}

/// The workspace's root.
pub fn workspace() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .context("workspace root")
}
