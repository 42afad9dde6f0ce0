//! Kernel parameters that belong to a container's own namespaces. All others are the host's.

use super::OptionProblem;

const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Whether it is one of the network namespace, which a checkpoint does not hold.
pub fn is_net(name: &str) -> bool {
    name.starts_with("net.")
}

/// Refuses a parameter of the host, and tricks in names and values.
pub fn check(name: &str, value: &str) -> Result<(), OptionProblem> {
    let given = format!("{name}={value}");
    let refuse = |takes: &str| OptionProblem::new("--sysctl", &given, takes);
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    if name.len() > 200 || !name.split('.').all(part) {
        return Err(refuse("NAME=VALUE, the name's parts apart by dots"));
    }
    if value.is_empty() || value.len() > 1024 || value.chars().any(char::is_control) {
        return Err(refuse("a value on one line"));
    }
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") || is_net(name) {
        return Ok(());
    }
    Err(refuse(
        "a parameter of the container's own namespaces: kernel.msg*, kernel.sem, kernel.shm*, \
         fs.mqueue.* or net.*; any other is the host's",
    ))
}

/// `NAME=VALUE`.
pub fn parse(text: &str) -> Result<(String, String), OptionProblem> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| OptionProblem::new("--sysctl", text, "NAME=VALUE"))?;
    check(name, value)?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_namespaces_are_taken() {
        for good in [
            "net.core.somaxconn=512",
            "kernel.shmmax=1",
            "kernel.sem=250 32000 32 128",
            "fs.mqueue.msg_max=5",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "kernel.panic=1",
            "vm.swappiness=1",
            "kernel.hostname=x",
            "net",
            "net.=1",
            "net..x=1",
            "net.core/../../kernel/panic=1",
            "net.x=1\n2",
            "net.x=",
            "kernel.shmmax.x=1",
            "fs.file-max=1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
