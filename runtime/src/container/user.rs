//! Who a container's process is: names are looked up in the container's own files.

use std::{io::Read, path::Path};

use rustix::fs::OFlags;

/// The largest passwd or group file that is read.
const LIMIT: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// The home directory, as `/etc/passwd` says.
    pub home: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("user `{0}` is not in the container's /etc/passwd")]
    UnknownUser(String),
    #[error("group `{0}` is not in the container's /etc/group")]
    UnknownGroup(String),
}

/// `user[:group]`, names or numbers; empty: root. `root` is the container's root directory.
pub fn resolve(root: &Path, text: &str) -> Result<User, UserError> {
    find(text, &read(root, "etc/passwd"), &read(root, "etc/group"))
}

/// A file of the container. Its paths are its own matter: resolved inside its root.
fn read(root: &Path, path: &str) -> String {
    let mut text = String::new();
    let opened = pathrs::Root::open(root)
        .and_then(|root| root.resolve(path))
        .and_then(|handle| {
            handle.reopen(pathrs::flags::OpenFlags::from_bits_retain(
                (OFlags::RDONLY | OFlags::NONBLOCK).bits().into(),
            ))
        });
    if let Ok(file) = opened {
        // Not text: as good as not there.
        let _ = file.take(LIMIT).read_to_string(&mut text);
    }
    text
}

fn find(text: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 6 && (fields[0] == user || fields[2] == user));
    let mut found = match &entry {
        Some(fields) => User {
            uid: fields[2]
                .parse()
                .map_err(|_| UserError::UnknownUser(user.to_owned()))?,
            gid: fields[3]
                .parse()
                .map_err(|_| UserError::UnknownUser(user.to_owned()))?,
            groups: Vec::new(),
            home: Some(fields[5].to_owned()).filter(|home| !home.is_empty()),
        },
        None => User {
            uid: user
                .parse()
                .map_err(|_| UserError::UnknownUser(user.to_owned()))?,
            ..User::default()
        },
    };
    let groups = || {
        group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .filter(|f| f.len() >= 4)
    };
    if let Some(wanted) = wanted_group {
        found.gid = match groups().find(|fields| fields[0] == wanted) {
            Some(fields) => fields[2].parse().ok(),
            None => wanted.parse().ok(),
        }
        .ok_or_else(|| UserError::UnknownGroup(wanted.to_owned()))?;
    } else if let Some(entry) = &entry {
        found.groups = groups()
            .filter(|fields| fields[3].split(',').any(|member| member == entry[0]))
            .filter_map(|fields| fields[2].parse().ok())
            .collect();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nredis:x:101:102::/var/lib/redis:/x\n";
    const GROUP: &str = "root:x:0:\nredis:x:102:\ntty:x:5:redis,other\n";

    #[test]
    fn names_numbers_and_groups_are_found() {
        let redis = find("redis", PASSWD, GROUP).unwrap();
        assert_eq!((redis.uid, redis.gid, redis.groups), (101, 102, vec![5]));
        assert_eq!(
            find("", PASSWD, GROUP).unwrap().home.as_deref(),
            Some("/root")
        );
        let numbers = find("1000:1001", PASSWD, GROUP).unwrap();
        assert_eq!((numbers.uid, numbers.gid), (1000, 1001));
        assert_eq!(find("redis:tty", PASSWD, GROUP).unwrap().gid, 5);
        assert!(matches!(
            find("nobody", PASSWD, GROUP),
            Err(UserError::UnknownUser(_))
        ));
        assert!(matches!(
            find("0:none", PASSWD, GROUP),
            Err(UserError::UnknownGroup(_))
        ));
    }
}
