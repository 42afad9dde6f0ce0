//! Values that instructions give: what they have to be.

use super::error::Refused;

const MAX_PORTS: u32 = 1024;

/// An absolute path without `.`, `..` and empty parts.
pub fn normalized(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A source's path: relative, and inside of what it is copied from.
pub(super) fn inside(path: &str) -> Result<String, Refused> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(Refused::Outside(path.chars().take(200).collect()));
                }
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

pub(super) fn plain(text: &str) -> Result<(), Refused> {
    match text.chars().any(char::is_control) {
        true => Err(Refused::Control),
        false => Ok(()),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`: each as the configuration names it.
pub(super) fn expand_ports(word: &str) -> Result<Vec<String>, Refused> {
    let refuse = || Refused::invalid(word, "a port is such as `80`, `53/udp` or `8000-8010`");
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(refuse());
    }
    // `host:container`: only the container's is the image's matter.
    let ports = ports.rsplit(':').next().unwrap_or(ports);
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (low, high) = match ports.split_once('-') {
        Some((low, high)) => (number(low), number(high)),
        None => (number(ports), number(ports)),
    };
    let (Some(low), Some(high)) = (low, high) else {
        return Err(refuse());
    };
    if high < low || u32::from(high - low) >= MAX_PORTS {
        return Err(refuse());
    }
    Ok((low..=high)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

pub(super) fn is_signal(text: &str) -> bool {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    matches!(name.parse::<u32>(), Ok(1..=64))
        || format!("SIG{name}")
            .parse::<nix::sys::signal::Signal>()
            .is_ok()
        || name.starts_with("RTMIN")
        || name.starts_with("RTMAX")
}
