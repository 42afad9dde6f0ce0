//! The text files of the workspace, as they lie in the working tree.

use std::{fs, path::Path};

use anyhow::Context;

pub struct File {
    /// Relative to the root.
    pub path: String,
    pub text: String,
}

const SKIPPED_DIRS: &[&str] = &["target", ".git"];
const EXTENSIONS: &[&str] = &["rs", "proto", "toml", "md", "sh"];

pub fn read(root: &Path) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    walk(root, root, &mut files)?;
    Ok(files)
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<File>) -> anyhow::Result<()> {
    let failed = |path: &Path| format!("can't read `{}`", path.display());
    for entry in fs::read_dir(dir).with_context(|| failed(dir))? {
        let entry = entry.with_context(|| failed(dir))?;
        let path = entry.path();
        let kind = entry.file_type().with_context(|| failed(&path))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if kind.is_dir() && !SKIPPED_DIRS.contains(&name.as_ref()) {
            walk(root, &path, files)?;
        } else if kind.is_file() && is_ours(&name) {
            let relative = path.strip_prefix(root).unwrap_or(&path);
            files.push(File {
                path: relative.to_string_lossy().into_owned(),
                text: fs::read_to_string(&path).with_context(|| failed(&path))?,
            });
        }
    }
    Ok(())
}

fn is_ours(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, extension)| EXTENSIONS.contains(&extension))
}
