//! The way out: packets from a network to anywhere else carry the host's address.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use godwit_types::NetworkSpec;

use super::error::{NetworkError, Result};

/// Puts the rules in place, whatever was there.
pub fn ensure(network: &NetworkSpec) -> Result<()> {
    let (table, subnet) = (table(network.vni), network.subnet);
    nft(
        network.vni,
        &format!(
            "add table ip {table}\n\
             flush table ip {table}\n\
             table ip {table} {{\n\
               chain postrouting {{\n\
                 type nat hook postrouting priority srcnat;\n\
                 ip saddr {subnet} ip daddr != {subnet} masquerade\n\
               }}\n\
             }}\n"
        ),
    )
}

/// Removes them, if they are there.
pub fn remove(vni: u32) -> Result<()> {
    let table = table(vni);
    nft(
        vni,
        &format!("add table ip {table}\ndelete table ip {table}\n"),
    )
}

fn table(vni: u32) -> String {
    format!("godwit-{vni}")
}

fn nft(vni: u32, rules: &str) -> Result<()> {
    let refused = |said: String| NetworkError::Nft { vni, said };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| refused(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // An error: it has ended, and its exit code says why.
        let _ = stdin.write_all(rules.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| refused(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(refused(
        said.lines().next().unwrap_or("no reason given").to_owned(),
    ))
}
